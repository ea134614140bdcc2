"""Merges on disk: interrupted at any point, on a full disk, into folders that are not free."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import CheckpointError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.shards import cut_into_shards
from evomerge.merging.sources import Sources
from evomerge.models.writer import TensorForm
from evomerge.recipe.files import dump_recipe, load_recipe
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import save_tiny_llama

Family = dict[str, Path]
SHARD = 5000  # bytes; the tiny models take several


def recipe(family: Family, density: float = 0.4) -> Recipe:
    experts = {name: str(family[name]) for name in ("one", "two", "three")}
    rule = Rule("dare_ties", {"coefficient": 0.7, "density": density})
    return Recipe(experts, (rule,), base=str(family["base"]), seed=5)


def contents(folder: Path) -> dict[str, object]:
    """What every file holds; of the recipe what it means, as it names models from where it lies."""
    held: dict[str, object] = {file.name: file.read_bytes() for file in folder.iterdir()}
    recipe = folder / "recipe.yaml"
    return {**held, recipe.name: load_recipe(recipe)} if recipe.is_file() else held


def shards(folder: Path) -> dict[str, int]:
    """When each complete shard was written."""
    return {f.name: f.stat().st_mtime_ns for f in folder.glob("model*.safetensors")}


class Interruption(Exception):  # noqa: N818
    pass


def stop_after(n: int) -> object:
    def progress(done: int, total: int) -> None:
        if done == n:
            raise Interruption

    return progress


@pytest.fixture(scope="module")
def whole(tiny_family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_checkpoint(recipe(tiny_family), folder, shard_bytes=SHARD)
    return folder


def test_every_file_that_transformers_needs_is_there(whole: Path, tiny_family: Family) -> None:
    source = {file.name for file in tiny_family["base"].iterdir()} - {"model.safetensors"}
    assert source < set(contents(whole))
    assert not [name for name in contents(whole) if name.startswith(".")]
    index = json.loads((whole / "model.safetensors.index.json").read_text())
    stored = {name: t for file in shards(whole) for name, t in load_file(whole / file).items()}
    assert set(index["weight_map"]) == set(stored)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in stored.values())
    AutoModelForCausalLM.from_pretrained(whole)
    AutoTokenizer.from_pretrained(whole)


def test_everything_that_the_tokenizer_owns_is_there(tiny_family: Family, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_family["base"], tmp_path / "base"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = {"default": "{{ messages }}", "rag": "é", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(base)
    own = {"additional_chat_templates/rag.jinja", "qwen.tiktoken", "bpe.codes", "vocab.bpe"}
    foreign = {"pytorch_model.bin.index.json", "consolidated.safetensors.index.json", ".x.json"}
    for name in own | foreign:
        (base / name).write_bytes(b"x")
    out = tmp_path / "out"
    write_checkpoint(recipe({**tiny_family, "base": base}), out)
    written = AutoTokenizer.from_pretrained(out)
    assert written.chat_template == {**tokenizer.chat_template, "rag": "x"}
    assert all((out / name).read_bytes() == b"x" for name in own)
    assert not any((out / name).exists() for name in foreign)


def test_a_link_out_of_the_base_stops_the_merge_before_it_starts(
    tiny_family: Family, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_family["base"], tmp_path / "base"))
    (tmp_path / "secret").write_text("secret")
    (base / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"got notes\.txt, a link out of it"):
        write_checkpoint(recipe({**tiny_family, "base": base}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_are_the_candidate_byte_for_byte(whole: Path, tiny_family: Family) -> None:
    wanted = recipe(tiny_family)
    candidate = LiveCandidate(Sources(wanted.base, wanted.experts))
    candidate.materialise(wanted)
    live = candidate.model.state_dict()
    for file in shards(whole):
        for name, tensor in load_file(whole / file).items():
            assert torch.equal(tensor.view(torch.int16), live[name].view(torch.int16)), name


def test_a_merge_stopped_anywhere_continues_to_the_same_bytes(
    whole: Path, tiny_family: Family, tmp_path: Path
) -> None:
    last = {file: len(load_file(whole / file)) for file in sorted(shards(whole))}
    assert len(last) > 5
    for n in accumulate(last.values()):  # at the last tensor of each shard
        out = tmp_path / str(n)
        with pytest.raises(Interruption):
            write_checkpoint(recipe(tiny_family), out, shard_bytes=SHARD, progress=stop_after(n))
        kept = shards(out)
        assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in kept)
        write_checkpoint(recipe(tiny_family), out, shard_bytes=SHARD)
        assert contents(out) == contents(whole)
        assert kept.items() <= shards(out).items()  # not written again


KILLED = """
import os, signal, sys
from pathlib import Path
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.files import load_recipe

def progress(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

write_checkpoint(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), shard_bytes=5000,
                 progress=progress)
"""


def test_kill_9_loses_no_complete_shard(whole: Path, tiny_family: Family, tmp_path: Path) -> None:
    file, out = tmp_path / "recipe.yaml", tmp_path / "out"
    file.write_text(dump_recipe(recipe(tiny_family)))
    command = [sys.executable, "-c", KILLED, str(file), str(out), "17"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    kept = shards(out)
    assert kept
    write_checkpoint(recipe(tiny_family), out, shard_bytes=SHARD)
    assert contents(out) == contents(whole)
    assert kept.items() <= shards(out).items()


def interrupted(wanted: Recipe, out: Path) -> None:
    with pytest.raises(Interruption):
        write_checkpoint(wanted, out, shard_bytes=SHARD, progress=stop_after(20))


def test_an_unfinished_merge_of_another_recipe_is_kept(tiny_family: Family, tmp_path: Path) -> None:
    interrupted(recipe(tiny_family), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"unfinished merge of recipe \w+, this is recipe"):
        write_checkpoint(recipe(tiny_family, density=0.5), tmp_path, shard_bytes=SHARD)
    assert contents(tmp_path) == before


def test_a_broken_note_of_an_unfinished_merge_is_explained(
    tiny_family: Family, tmp_path: Path
) -> None:
    interrupted(recipe(tiny_family), tmp_path)
    (tmp_path / ".merge-in-progress").write_text("{")
    with pytest.raises(CheckpointError, match="merge-in-progress"):
        write_checkpoint(recipe(tiny_family), tmp_path, shard_bytes=SHARD)


@pytest.mark.parametrize("change", ["shard size", "source"])
def test_shards_that_no_longer_fit_are_written_anew(
    change: str, tiny_family: Family, tmp_path: Path
) -> None:
    own = tmp_path / "one"
    base = AutoModelForCausalLM.from_pretrained(tiny_family["base"])
    save_tiny_llama(own, seed=1, near=base)
    family = {**tiny_family, "one": own}
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    interrupted(recipe(family), out)
    shard_bytes = SHARD
    if change == "source":
        save_tiny_llama(own, seed=9, near=base)
    else:
        shard_bytes = 2 * SHARD
    for folder in (out, fresh):
        write_checkpoint(recipe(family), folder, shard_bytes=shard_bytes)
    assert contents(out) == contents(fresh)


def test_a_finished_model_is_replaced_whole(
    whole: Path, tiny_family: Family, tmp_path: Path
) -> None:
    """From one file to many and back, no tensor file of the model before is left."""
    write_checkpoint(recipe(tiny_family, density=0.5), tmp_path)
    write_checkpoint(recipe(tiny_family), tmp_path, shard_bytes=SHARD)
    assert contents(tmp_path) == contents(whole)
    write_checkpoint(recipe(tiny_family), tmp_path)
    assert list(shards(tmp_path)) == ["model.safetensors"]
    assert "model.safetensors.index.json" not in contents(tmp_path)


def test_a_source_is_never_the_target(tiny_family: Family) -> None:
    before = contents(tiny_family["two"])
    with pytest.raises(CheckpointError, match="a folder of its own"):
        write_checkpoint(recipe(tiny_family), tiny_family["two"] / ".", shard_bytes=SHARD)
    assert contents(tiny_family["two"]) == before


def test_nan_stops_the_merge_and_names_tensor_and_file(tiny_family: Family, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "bad", seed=0)
    tensors = load_file(tmp_path / "bad" / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    bad = recipe({**tiny_family, "one": tmp_path / "bad"})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight of .*/bad/model\.safetensors"):
        write_checkpoint(bad, tmp_path / "out")
    assert not shards(tmp_path / "out")


@pytest.fixture
def _full_disk() -> Iterator[None]:
    """Let no file grow beyond 20 kB; the system's answer is an OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("_full_disk")
def test_a_full_disk_is_one_clear_line_and_leaves_no_half_shard(
    tiny_family: Family, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as error:
        write_checkpoint(recipe(tiny_family), tmp_path)
    assert str(error.value).startswith(f"cannot write {tmp_path / 'model.safetensors'}: ")
    assert len(str(error.value).splitlines()) == 1
    assert set(contents(tmp_path)) == {".merge-in-progress"}


def test_a_failed_merge_without_shards_is_in_nobodys_way(
    tiny_family: Family, tmp_path: Path
) -> None:
    with pytest.raises(Interruption):
        write_checkpoint(recipe(tiny_family, density=0.5), tmp_path, progress=stop_after(3))
    write_checkpoint(recipe(tiny_family), tmp_path)


def test_a_folder_that_cannot_be_made_is_one_clear_line(
    tiny_family: Family, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write into"):
        write_checkpoint(recipe(tiny_family), tmp_path / "file")


def test_shards_are_filled_in_order_and_large_tensors_stand_alone() -> None:
    sizes = {"a": 3, "b": 2, "c": 9, "d": 1, "e": 4}
    forms = {name: TensorForm(torch.uint8, (size,)) for name, size in sizes.items()}
    cut = cut_into_shards(forms, 5)
    assert [list(shard) for shard in cut.values()] == [["a", "b"], ["c"], ["d", "e"]]
    assert list(cut)[1] == "model-00002-of-00003.safetensors"
    assert list(cut_into_shards(forms, 100)) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_what_no_merge_has_written_is_kept(tiny_family: Family, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=f"whose {name} no merge has written"):
        write_checkpoint(recipe(tiny_family), tmp_path)
    assert contents(tmp_path) == {name: b"precious"}


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_a_recipe_beside_it_makes_no_merge_of_a_users_model(
    tiny_family: Family, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"precious")
    text = dump_recipe(recipe(tiny_family), "evomerge merge THIS --out DIR")
    (tmp_path / "recipe.yaml").write_text(text)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=f"whose {name} no merge has written"):
        write_checkpoint(recipe(tiny_family), tmp_path)
    assert contents(tmp_path) == before


def test_nothing_that_transformers_loads_is_left_of_an_earlier_merge(
    whole: Path, tiny_family: Family, tmp_path: Path
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_family["base"], base)
    own = ("chat_template.jinja", "tokenizer.model", "generation_config.json", "vocab.txt")
    for name in (*own, "processor_config.json", "additional_chat_templates/rag.jinja"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("{}")
    write_checkpoint(recipe({**tiny_family, "base": base}), out, shard_bytes=SHARD)
    (out / "masks").mkdir()
    for name in ("masks.yaml", "masks/000.safetensors", "twins.yaml", "notes.txt", "scores.json"):
        (out / name).write_text("kept with it, or somebody's")
    write_checkpoint(recipe(tiny_family), out, shard_bytes=SHARD)
    left = {name: (out / name).read_bytes() for name in ("notes.txt", "scores.json")}
    assert contents(out) == {**contents(whole), **left}


def test_an_earlier_merge_is_replaced_and_other_files_stay(
    tiny_family: Family, tmp_path: Path
) -> None:
    (tmp_path / "notes.md").write_bytes(b"mine")
    write_checkpoint(recipe(tiny_family), tmp_path)
    first = contents(tmp_path)
    (tmp_path / "README.md").write_bytes(b"its card")
    write_checkpoint(recipe(tiny_family), tmp_path, shard_bytes=SHARD)
    assert contents(tmp_path).keys() != first.keys()
    assert "README.md" not in contents(tmp_path)
    assert contents(tmp_path)["notes.md"] == b"mine"
