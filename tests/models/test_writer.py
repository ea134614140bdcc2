"""Files written tensor by tensor, read back by the safetensors library."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evomerge.errors import CheckpointError
from evomerge.models.writer import TensorForm, write_file, write_safetensors

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8]
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 99)),
    max_size=6,
)


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    forms = {name: TensorForm(t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    write_safetensors(path, forms, tensors.__getitem__)


@given(drawn=TENSORS)
def test_the_library_reads_back_what_was_written(
    drawn: dict[str, tuple[torch.dtype, list[int], int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tensors = {n: torch.full(shape, value).to(dtype) for n, (dtype, shape, value) in drawn.items()}
    file = tmp_path_factory.mktemp("w") / "x.safetensors"
    write(file, tensors)
    found = load_file(file)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {f"t{i}": torch.randn(5, i + 1).bfloat16() for i in range(4)}
    tensors["steps"] = torch.arange(3)
    write(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_views_are_written_as_what_they_show(tmp_path: Path) -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    write(tmp_path / "x", {"turned": turned})
    assert torch.equal(load_file(tmp_path / "x")["turned"], turned)


def test_a_file_has_its_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), write_file(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match=r"cannot write .*nowhere/x: No such file"),
        write_file(tmp_path / "nowhere" / "x"),
    ):
        pass
