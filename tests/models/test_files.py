"""Which files are the model: what transformers opens, or a refusal in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from evomerge.errors import CheckpointError
from evomerge.models.adapter import Adapter
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.files import INDEX, companion_files, file_in
from evomerge.models.reference import resolve_adapter, resolve_model
from evomerge.models.vocabulary import tokens_of
from tests.tiny import save_tiny_llama

Tensors = dict[str, torch.Tensor]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OUTSIDE = 7.0  # value of all tensors that lie outside the folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    save_tiny_llama(folder, seed=0, n_layers=1)
    return folder


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    """A model folder, to be damaged."""
    return Path(shutil.copytree(source, tmp_path / "model"))


def write(path: Path, tensors: Tensors) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


def constants(source: Path, value: float) -> Tensors:
    stored = load_file(source / "model.safetensors")
    return {name: torch.full_like(tensor, value) for name, tensor in stored.items()}


def write_shards(folder: Path, tensors: Tensors, first: str = "model-00001-of-00002") -> None:
    """Cut tensors into two files with an index."""
    names = sorted(tensors)
    second = first.replace("00001-of", "00002-of")
    parts = {f"{first}.safetensors": names[:5], f"{second}.safetensors": names[5:]}
    for file, part in parts.items():
        write(folder / file, {name: tensors[name] for name in part})
    write_index(folder, {name: file for file, part in parts.items() for name in part})


def write_index(folder: Path, weight_map: object, **more: object) -> None:
    content = {"metadata": {}, "weight_map": weight_map, **more}
    (folder / INDEX).write_text(json.dumps(content))


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def value_in(folder: Path) -> float:
    """Open a model all of whose tensors are one value."""
    checkpoint = Checkpoint(folder)
    (value,) = {float(checkpoint.tensor(name).unique()) for name in checkpoint.names}
    return value


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        Checkpoint(folder)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


@dataclass(frozen=True)
class Layout:
    """What a generated folder holds; every file has tensors of a value of its own."""

    single: str
    index: str
    strays: frozenset[str]
    config: str

    def write(self, source: Path, root: Path) -> Path:
        """Write it, and what lies outside beside it."""
        folder = root / "model"
        folder.mkdir()
        shutil.copy(source / "config.json", folder)
        write(root / "outside.safetensors", constants(source, OUTSIDE))
        for value, stray in enumerate(sorted(self.strays), 20):
            write(folder / stray, constants(source, value))
        self._write_index(source, folder, root)
        self._write_single(source, folder, root)
        if self.config == "quantized":
            change_config(folder, quantization_config={"quant_method": "bitsandbytes"})
        elif self.config != "plain":
            change_config(folder, transformers_weights=self.config)
        return folder

    def _write_single(self, source: Path, folder: Path, root: Path) -> None:
        path = folder / "model.safetensors"
        if self.single == "file":
            write(path, constants(source, 1))
        elif self.single == "link inside":
            (folder / "deep").mkdir()
            write(folder / "deep" / "own", constants(source, 1))
            path.symlink_to(Path("deep", "own"))
        elif self.single == "link out":
            path.symlink_to(root / "outside.safetensors")
        elif self.single == "dangling":
            path.symlink_to("nothing")
        elif self.single == "broken":
            path.write_bytes(b"broken")

    def _write_index(self, source: Path, folder: Path, root: Path) -> None:
        if self.index == "none":
            return
        write_shards(folder, constants(source, 2))
        names = json.loads((folder / INDEX).read_text())["weight_map"]
        last = sorted(names)[-1]
        if self.index == "gone":
            (folder / names[last]).unlink()
        elif self.index == "old set":
            write_shards(folder, constants(source, 3), "model-00001-of-00009")
        elif self.index == "lacks":
            write_index(folder, {**names, "model.more.weight": names[last]})
        elif self.index == "says less":
            write_index(folder, {k: v for k, v in names.items() if k != last})
        elif self.index == "swapped":
            write_index(folder, {**names, last: names[sorted(names)[0]]})
        elif self.index == "up":
            write_index(folder, dict.fromkeys(names, "../outside.safetensors"))
        elif self.index == "absolute":
            write_index(folder, dict.fromkeys(names, str(root / "outside.safetensors")))
        elif self.index == "null":
            write_index(folder, None)
        elif self.index == "no metadata":
            (folder / INDEX).write_text(json.dumps({"weight_map": names}))


SINGLES = ("none", "file", "link inside", "link out", "dangling", "broken")
INDICES = (
    *("none", "whole", "gone", "old set", "lacks", "says less", "swapped", "up", "absolute"),
    *("null", "no metadata"),
)
BESIDE = (
    *("consolidated.safetensors", "adapter_model.safetensors", "model.fp16.safetensors"),
    *("model-00001-of-00003.safetensors", "a.safetensors"),
)
LAYOUTS = st.builds(
    Layout,
    single=st.sampled_from(SINGLES),
    index=st.sampled_from(INDICES),
    strays=st.frozensets(st.sampled_from(BESIDE)),
    config=st.sampled_from(["plain", "plain", "quantized", "a.safetensors", INDEX]),
)


def opened_by_transformers(folder: Path) -> Tensors | None:
    """Load a folder; ``None`` if transformers refuses it, or makes up tensors."""
    config = AutoConfig.from_pretrained(folder)
    vars(config).pop("quantization_config", None)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, config=config, output_loading_info=True
        )
    except Exception:
        return None
    return None if loading["missing_keys"] else model.state_dict()


def opened_or_fault(folder: Path) -> Checkpoint | str:
    try:
        return Checkpoint(folder)
    except CheckpointError as err:
        return str(err)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layout=LAYOUTS)
def test_any_folder_is_what_transformers_opens_or_refused(
    layout: Layout, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = layout.write(source, tmp_path_factory.mktemp("layout"))
    theirs = opened_by_transformers(folder)
    ours = opened_or_fault(folder)
    if isinstance(ours, str):
        assert len(ours.splitlines()) == 1
        leads_out = theirs is not None and OUTSIDE in next(iter(theirs.values()))
        # Transformers does not miss a promised tensor that the model has no use for.
        assert theirs is None or leads_out or layout.index == "lacks"
        return
    assert theirs is not None
    for name in ours.names:
        assert torch.equal(ours.tensor(name), theirs[name])
        assert not (ours.tensor(name) == OUTSIDE).any()


def test_one_file_comes_before_an_older_index(folder: Path, source: Path) -> None:
    write_shards(folder, constants(source, 2))
    write(folder / "model.safetensors", constants(source, 1))
    assert value_in(folder) == 1


def test_files_of_other_names_are_no_part_of_the_model(folder: Path) -> None:
    write(folder / "consolidated.safetensors", {"layers.0.attention.wq.weight": torch.ones(2)})
    write(folder / "adapter_model.safetensors", {"base_model.model.x": torch.ones(2)})
    assert "lm_head.weight" in Checkpoint(folder)
    assert not {"layers.0.attention.wq.weight", "base_model.model.x"} & set(
        Checkpoint(folder).names
    )


def test_an_index_whose_files_are_gone_names_the_first(folder: Path, source: Path) -> None:
    (folder / "model.safetensors").unlink()
    write_shards(folder, constants(source, 2))
    (folder / "model-00002-of-00002.safetensors").unlink()
    write(folder / "other.safetensors", constants(source, 3))
    assert "model-00002-of-00002.safetensors" in refusal(folder)


def test_files_without_an_index_are_named_in_the_refusal(folder: Path) -> None:
    file = folder / "model.safetensors"
    shutil.copy(file, folder / "one.safetensors")
    file.rename(folder / "two.gguf")
    assert "found neither, only one.safetensors, two.gguf" in refusal(folder)


def test_a_tensor_in_two_files_is_refused(folder: Path, source: Path) -> None:
    (folder / "model.safetensors").unlink()
    write_shards(folder, constants(source, 2))
    write(folder / "model-00002-of-00002.safetensors", constants(source, 3))
    assert "expected every tensor once" in refusal(folder)


def test_an_adapter_in_the_folder_of_a_model_is_refused(folder: Path) -> None:
    """Transformers applies it or not, according to whether PEFT is installed."""
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json beside it" in refusal(folder)


def test_files_of_a_distributed_training_are_refused(folder: Path) -> None:
    (folder / "shard-00000-model-00001-of-00001.safetensors").write_bytes(b"")
    assert "distributed training" in refusal(folder)


@pytest.mark.parametrize(
    "weight_map", [None, [], "x", {}, {"lm_head.weight": None}, {"lm_head.weight": 5}]
)
def test_an_index_of_another_form_is_refused(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors").unlink()
    write_index(folder, weight_map)
    assert "expected an index with a weight_map" in refusal(folder)


@pytest.mark.parametrize("content", ["", "[" * 10**5, "[]", "\x00", '{"a": '])
def test_a_broken_index_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(content)
    assert INDEX in refusal(folder)


NAMES = ["../x.safetensors", "a/../../x", "/etc/hostname", "a\0b", "", ".", "n" * 5000, "\ud800"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out_of_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    write_index(folder, {"lm_head.weight": name})
    refusal(folder)


@pytest.mark.parametrize("name", ["../config.json", "/config.json"])
def test_a_config_for_other_versions_is_in_the_folder(folder: Path, name: str) -> None:
    change_config(folder, configuration_files=[name.replace("config", "config.4.0.0")])
    assert "read from their own folder only" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    assert f"got {name}, a link out of it to {tmp_path / name}" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "notes.txt", "additional_chat_templates/rag.jinja"]
)
def test_companions_that_are_links_out_of_the_folder_are_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text('{"model": {}}')
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=f"got {name}, a link out of it"):
        companion_files(folder)


def test_a_folder_of_links_within_links_is_refused_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "x.jinja").write_text("secret")
    (folder / "additional_chat_templates").symlink_to(tmp_path / "templates")
    with pytest.raises(CheckpointError, match="a link out of it"):
        companion_files(folder)


def test_vocabularies_and_adapters_are_read_from_their_folders(
    folder: Path, source: Path, tmp_path: Path
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"got tokenizer\.json, a link out of it"):
        tokens_of(folder)
    (folder / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"got adapter_model\.safetensors, a link out of it"):
        Adapter(folder, Checkpoint(source))


def test_links_in_a_circle_are_refused(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(CheckpointError, match="leads nowhere"):
        file_in(folder, "a")


def test_links_into_the_hubs_cache_are_followed(source: Path, tmp_path: Path) -> None:
    """Snapshots are made of such links, and so are folders of older downloads."""
    cache = tmp_path / "models--owner--name"
    for folder in (cache / "snapshots" / COMMIT, tmp_path / "downloaded"):
        folder.mkdir(parents=True)
        (cache / "blobs").mkdir(exist_ok=True)
        for file in source.iterdir():
            shutil.copy(file, cache / "blobs" / f"hash of {file.name}")
            (folder / file.name).symlink_to(cache / "blobs" / f"hash of {file.name}")
        assert Checkpoint(folder).names == Checkpoint(source).names
        assert "tokenizer.json" in companion_files(folder)


def test_a_linked_folder_is_a_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    assert Checkpoint(tmp_path / "link").names == Checkpoint(source).names


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder as owner/name the way the library does: the files that fit patterns."""
    repository, snapshot = tmp_path / "repository", tmp_path / "snapshots" / COMMIT
    repository.mkdir()

    def download(
        name: str,
        *,
        revision: str | None,
        allow_patterns: list[str],
        ignore_patterns: str | None,
    ) -> str:
        assert revision in ("v1", COMMIT)
        for file in repository.rglob("*"):
            path = file.relative_to(repository).as_posix()
            wanted = any(fnmatchcase(path, pattern) for pattern in allow_patterns)
            if file.is_file() and wanted and not fnmatchcase(path, ignore_patterns or ""):
                (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, snapshot / path)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return repository


def downloaded(folder: Path) -> set[str]:
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}


STRAYS = (
    *("consolidated.safetensors", "original/model.safetensors", "checkpoint-5/trainer_state.json"),
    *("model.fp16.safetensors", "model-00001-of-00003.safetensors", "pytorch_model.bin"),
    *("additional_chat_templates/rag.jinja", "adapter_model.safetensors"),
)


@pytest.mark.parametrize("form", ["single", "sharded", "named", "both"])
def test_of_a_hub_model_only_what_belongs_is_downloaded(hub: Path, source: Path, form: str) -> None:
    shutil.copytree(source, hub, dirs_exist_ok=True)
    for stray in STRAYS:
        (hub / stray).parent.mkdir(exist_ok=True)
        (hub / stray).write_bytes(b"")
    weights = {"model.safetensors"}
    if form != "single":
        write_shards(hub, constants(source, 2))
    if form == "sharded":
        (hub / "model.safetensors").unlink()
        weights = {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    if form == "named":
        change_config(hub, transformers_weights="model.fp16.safetensors")
        shutil.copy(source / "model.safetensors", hub / "model.fp16.safetensors")
        weights = {"model.safetensors", "model.fp16.safetensors"}
    folder = resolve_model("owner/name@v1")
    Checkpoint(folder)
    companions = {f.name for f in source.iterdir()} - {"model.safetensors"}
    indices = set() if form == "single" else {INDEX}
    templates = {"additional_chat_templates/rag.jinja"}
    assert downloaded(folder) == companions | indices | weights | templates


def test_of_a_hub_adapter_only_its_two_files_are_downloaded(hub: Path) -> None:
    own = {"adapter_config.json", "adapter_model.safetensors"}
    for name in (*own, "optimizer.pt", "checkpoint-5/adapter_model.safetensors", "README.md"):
        (hub / name).parent.mkdir(exist_ok=True)
        (hub / name).write_bytes(b"")
    assert downloaded(resolve_adapter("owner/name@v1")) == own
