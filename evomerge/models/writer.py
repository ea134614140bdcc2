"""Safetensors files written tensor by tensor: no more than one tensor is in memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from evomerge.errors import CheckpointError
from evomerge.models.checkpoint import DTYPES

__all__ = ["TensorForm", "write_file", "write_safetensors"]

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8  # bytes; the header is padded to it


@dataclass(frozen=True)
class TensorForm:
    """What a tensor takes in a file, known before its values.

    Attributes:
        dtype: Its dtype.
        shape: Its shape.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    path: Path, forms: Mapping[str, TensorForm], tensor_of: Callable[[str], torch.Tensor]
) -> None:
    """Write a safetensors file; it gets its name when it is complete.

    Args:
        path: Where; replaced if it exists.
        forms: What it will hold.
        tensor_of: Called once for each name; returns a CPU tensor of that form.

    Raises:
        CheckpointError: The file cannot be written; nothing is left behind.
        ValueError: A tensor has another form than was said.
    """
    # Like the library: larger elements first, so that every tensor is aligned to its own.
    names = sorted(forms, key=lambda name: (-forms[name].dtype.itemsize, name))
    with write_file(path) as file:
        file.write(_header({name: forms[name] for name in names}))
        for name in names:
            tensor = tensor_of(name)
            if (found := TensorForm(tensor.dtype, tuple(tensor.shape))) != forms[name]:
                raise ValueError(f"expected {name} as {forms[name]}, got {found}")
            flat = tensor.contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


@contextmanager
def write_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that has its name only when it is complete and safe on disk.

    A killed process leaves at most a hidden file, which the next one overwrites.

    Raises:
        CheckpointError: The file cannot be written, e.g. the disk is full; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as err:
        raise CheckpointError(
            f"cannot write {path}: {err.strerror}; make room or choose another folder, then run "
            "the same command again: complete files are kept"
        ) from err
    finally:
        partial.unlink(missing_ok=True)


def _header(forms: Mapping[str, TensorForm]) -> bytes:
    """Lay out the tensors in the given order, see github.com/huggingface/safetensors#format."""
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, form in forms.items():
        start, end = end, end + form.nbytes
        dtype = _DTYPE_NAMES[form.dtype]
        content[name] = {"dtype": dtype, "shape": form.shape, "data_offsets": [start, end]}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
