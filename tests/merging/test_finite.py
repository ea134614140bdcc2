"""NaN and infinity in what is written are counted, and refused unless they are asked for."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evomerge.cli import main as cli
from evomerge.errors import CheckpointError, NonFiniteError
from evomerge.merging.finite import NonFinite, count_elements
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.recipe.files import dump_recipe
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import save_tiny_llama

LARGE = "model.layers.1.mlp.up_proj.weight"
CLAIM = ".merge-in-progress"


@pytest.fixture
def overflowing(tmp_path: Path) -> Recipe:
    """Base 0 and expert 40000 at three places; twice the task vector leaves float16's 65504."""
    save_tiny_llama(tmp_path / "base", seed=0, dtype=torch.float16)
    save_tiny_llama(tmp_path / "far", seed=0, dtype=torch.float16)
    for name, value in (("base", 0.0), ("far", 40000.0)):
        file = tmp_path / name / "model.safetensors"
        stored = load_file(file)
        stored[LARGE][0, :3] = value
        save_file(stored, file, metadata={"format": "pt"})
    rule = Rule("task_arithmetic", {"coefficient": 2.0})
    return Recipe({"far": str(tmp_path / "far")}, (rule,), base=str(tmp_path / "base"))


def infinities(folder: Path) -> dict[str, int]:
    tensors = {k: t for f in folder.glob("*.safetensors") for k, t in load_file(f).items()}
    counts = {name: int((~t.isfinite()).sum()) for name, t in tensors.items()}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("shard_bytes", [1 << 20, 5000])
def test_a_merge_that_leaves_float16_is_refused_and_leaves_nothing(
    overflowing: Recipe, tmp_path: Path, shard_bytes: int
) -> None:
    fault = f"got 3 NaN or infinite elements in 1 of 39 tensors, e.g. 3 in {LARGE}; "
    with pytest.raises(NonFiniteError, match=fault):
        write_checkpoint(overflowing, tmp_path / "out", shard_bytes=shard_bytes)
    assert not list((tmp_path / "out").iterdir())


def test_asked_for_it_is_written_and_counted(overflowing: Recipe, tmp_path: Path) -> None:
    found = write_checkpoint(overflowing, tmp_path / "out", allow_non_finite=True)
    assert found.counts == infinities(tmp_path / "out") == {LARGE: 3}
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_wider_dtype_holds_it(overflowing: Recipe, tmp_path: Path, dtype: str) -> None:
    assert not write_checkpoint(replace(overflowing, dtype=dtype), tmp_path / "out")
    assert float(load_file(tmp_path / "out" / "model.safetensors")[LARGE][0, 0]) in (79872, 80000)


def test_rounding_finite_models_to_float16_is_watched_too(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "base", seed=0)
    file = tmp_path / "base" / "model.safetensors"
    stored = load_file(file)
    stored["lm_head.weight"][1, 1] = 1e30  # fine in bfloat16
    save_file(stored, file, metadata={"format": "pt"})
    rule = Rule("linear", {"coefficient": 1.0})
    recipe = Recipe({"same": str(tmp_path / "base")}, (rule,), dtype="float16")
    with pytest.raises(NonFiniteError, match=r"got 1 .* e\.g\. 1 in lm_head\.weight"):
        write_checkpoint(recipe, tmp_path / "out")


def test_folding_a_scale_is_watched_too(overflowing: Recipe, tmp_path: Path) -> None:
    """The stream is divided by its scale: an output projection of 40000 becomes one of 400000."""
    name = LARGE.replace("up_proj", "down_proj")
    file = tmp_path / "far" / "model.safetensors"
    stored = load_file(file)
    stored[name][0, :2] = 40000
    save_file(stored, file, metadata={"format": "pt"})
    path = tuple(Hop("far", n, 0.1 if n == 1 else 1.0) for n in range(4))
    recipe = replace(overflowing, rules=(Rule("task_arithmetic", {"coefficient": 0.0}),), path=path)
    with pytest.raises(NonFiniteError, match=f"got 2 .* e.g. 2 in {name}"):
        write_checkpoint(recipe, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_files_kept_from_an_interrupted_merge_are_counted(
    overflowing: Recipe, tmp_path: Path
) -> None:
    class Interruption(Exception):  # noqa: N818
        pass

    def stop(done: int, total: int) -> None:
        if done == total:
            raise Interruption

    out = tmp_path / "out"
    with pytest.raises(Interruption):
        write_checkpoint(overflowing, out, shard_bytes=5000, progress=stop, allow_non_finite=True)
    assert infinities(out) == {LARGE: 3}  # complete, and of the merge that goes on
    with pytest.raises(NonFiniteError, match="got 3 NaN or infinite elements"):
        write_checkpoint(overflowing, out, shard_bytes=5000)
    assert not list(out.iterdir())


@pytest.mark.parametrize("where", ["base", "far"])
def test_nan_that_was_there_is_named_with_model_tensor_and_count(
    overflowing: Recipe, tmp_path: Path, where: str
) -> None:
    """Also where others are asked for: statistics of NaN mean nothing."""
    file = tmp_path / where / "model.safetensors"
    stored = load_file(file)
    stored["model.norm.weight"][3:5] = float("nan")
    save_file(stored, file, metadata={"format": "pt"})
    label = "base" if where == "base" else "experts.far"
    fault = f"{label}: expected finite numbers, got 2 .* in tensor model.norm.weight of {file}"
    with pytest.raises(CheckpointError, match=fault):
        write_checkpoint(overflowing, tmp_path / "out", shard_bytes=5000, allow_non_finite=True)
    assert not list((tmp_path / "out").iterdir())


def test_numbers_beyond_float32_are_said_to_be(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "wide", seed=0, dtype=torch.float64)
    file = tmp_path / "wide" / "model.safetensors"
    stored = load_file(file)
    stored["model.norm.weight"][0] = 1e300
    save_file(stored, file, metadata={"format": "pt"})
    sources = Sources(str(tmp_path / "wide"), {"same": str(tmp_path / "wide")})
    with pytest.raises(NonFiniteError, match=r"the range of float32, .* model\.norm\.weight"):
        sources.check_finite()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["evomerge", *arguments])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return int(done.value.code or 0)


def test_the_command_says_it(
    overflowing: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "r.yaml").write_text(dump_recipe(overflowing))
    command = ["merge", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")]
    assert run(monkeypatch, *command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("or keep them with --allow-non-finite")
    assert run(monkeypatch, *command, "--allow-non-finite") == 0
    assert "warning: it holds 3 NaN or infinite elements in 1 of 39" in capsys.readouterr().out


ENDS = [0.0, -1.5, 65504.0, float("nan"), float("inf"), float("-inf")]


@given(
    values=st.lists(st.sampled_from(ENDS), max_size=9),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_every_element_is_counted(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=torch.float64).to(dtype)
    assert count_elements(tensor) == sum(not math.isfinite(value) for value in values)


def test_whole_numbers_are_finite() -> None:
    assert count_elements(torch.arange(3)) == count_elements(torch.tensor([True])) == 0
    assert str(NonFinite.of({"a": 0})) == "no NaN or infinite elements in 1 tensors"
