"""A machine whose model files hold something else than the driver's is noticed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.errors import CheckpointError
from evomerge.execution.contents import ModelContents, require_contents
from evomerge.merging.sources import Sources


@pytest.fixture
def copies(tiny_family: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The same models on another machine: other folders, other times."""
    return {
        name: Path(shutil.copytree(tiny_family[name], tmp_path / name)) for name in ("base", "one")
    }


def sources(folders: dict[str, Path]) -> Sources:
    return Sources(str(folders["base"]), {"one": str(folders["one"])})


def test_the_same_files_elsewhere_are_the_same(
    tiny_family: dict[str, Path], copies: dict[str, Path]
) -> None:
    require_contents(sources(copies), ModelContents.of(sources(tiny_family)))


@pytest.mark.parametrize(
    ("model", "file", "of"),
    [
        ("one", "model.safetensors", "experts.one"),
        ("base", "config.json", "base"),
        ("base", "tokenizer.json", "base"),
    ],
)
def test_a_file_that_differs_is_named(
    tiny_family: dict[str, Path], copies: dict[str, Path], model: str, file: str, of: str
) -> None:
    wanted = ModelContents.of(sources(tiny_family))
    changed = copies[model] / file
    content = bytearray(changed.read_bytes())
    content[-3 if file.endswith("safetensors") else 1] ^= 0 if file.endswith(".json") else 1
    changed.write_bytes(bytes(content) + (b"\n" if file.endswith(".json") else b""))
    with pytest.raises(CheckpointError) as caught:
        require_contents(sources(copies), wanted)
    (fault,) = caught.value.faults
    assert str(fault).startswith(f"{of}: expected {changed} to hold what the driver's {file} does")


def test_a_tokenizer_that_is_not_there_is_named(
    tiny_family: dict[str, Path], copies: dict[str, Path]
) -> None:
    wanted = ModelContents.of(sources(tiny_family))
    (copies["base"] / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="got no such file"):
        require_contents(sources(copies), wanted)


def test_of_a_model_that_the_driver_has_not_downloaded_the_commit_must_agree(
    tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    snapshot = tmp_path / "snapshots" / "abc123"
    shutil.copytree(tiny_family["one"], snapshot)
    here = sources({"base": tiny_family["base"], "one": snapshot})
    known = ModelContents.of(here)
    not_downloaded = tuple(
        replace(file, digest="commit abc123") if file.of == "one" else file for file in known.files
    )
    require_contents(here, replace(known, files=not_downloaded))
    other = tuple(replace(f, digest=f.digest.replace("abc", "def")) for f in not_downloaded)
    with pytest.raises(CheckpointError, match=str(snapshot)):
        require_contents(here, replace(known, files=other))
