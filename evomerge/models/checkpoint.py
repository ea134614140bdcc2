"""Read-only access to a safetensors checkpoint, memory-mapped, in one file or many shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from evomerge.errors import CheckpointError

__all__ = ["DTYPES", "Checkpoint", "Part", "open_safetensors", "read_json", "stored_dtype"]

DTYPES = {  # by their names in the files
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, eq=False)
class Part:
    """One stored tensor that an expert's tensor is made of.

    Attributes:
        name: As in the file.
        file: Where it is.
        dtype: As in the file.
        read: Maps it into memory.
    """

    name: str
    file: Path
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor, backed by the file; never write into it."""
        return self.read()


class Checkpoint:
    """The tensors of one model folder, read lazily.

    Files stay memory-mapped: processes on one machine share a single copy through the page cache.

    Args:
        folder: Holds ``config.json`` and ``model.safetensors`` or a sharded index.
        files: What stands for the safetensors files where they are not in the folder, by path.

    Raises:
        CheckpointError: Files are missing or are not safetensors.
    """

    def __init__(self, folder: Path, files: Mapping[Path, Any] | None = None) -> None:
        self.folder = folder
        self.config = read_json(folder / "config.json")
        self._open_files: dict[Path, Any] = dict(files or {})
        self._file_of = _names_in(self._open_files) if files else _tensor_files(folder)
        self._stored = {name: name for name in self._file_of}  # what a file calls it
        self.names = tuple(sorted(self._stored))

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def named(self, stored: Mapping[str, str]) -> Checkpoint:
        """Give some of the tensors other names; two names may stand for one tensor.

        Args:
            stored: This checkpoint's name of each tensor, by the new name.
        """
        other = copy(self)
        other._stored = {name: self._stored[own] for name, own in stored.items()}
        other.names = tuple(sorted(stored))
        return other

    def file_of(self, name: str) -> Path:
        """Tell which file holds a tensor."""
        return self._file_of[self._stored[name]]

    def shape(self, name: str) -> tuple[int, ...]:
        """Read a tensor's shape without reading its values."""
        return tuple(self._slice(name).get_shape())

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Read every tensor's shape without reading values."""
        return {name: self.shape(name) for name in self.names}

    def dtype(self, name: str) -> torch.dtype:
        """Read a tensor's dtype without reading its values.

        Raises:
            CheckpointError: It is a dtype of quantised models.
        """
        return stored_dtype(self._handle(name), self._stored[name], self.file_of(name))

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor into memory.

        Args:
            name: Tensor name.

        Returns:
            A CPU tensor backed by the file; never write into it.

        Raises:
            CheckpointError: The checkpoint has no such tensor.
        """
        return self._handle(name).get_tensor(self._stored[name])  # type: ignore[no-any-return]

    @property
    def layout(self) -> Checkpoint:
        """See ``TensorSource``."""
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """See ``TensorSource``."""
        return (self.folder / "config.json", *sorted(set(self._file_of.values())))

    def parts(self, name: str) -> tuple[Part, ...]:
        """See ``TensorSource``."""
        file, dtype = self.file_of(name), self.dtype(name)
        return (Part(self._stored[name], file, dtype, partial(self.tensor, name)),)

    def _slice(self, name: str) -> Any:
        return self._handle(name).get_slice(self._stored[name])

    def _handle(self, name: str) -> Any:
        try:
            path = self.file_of(name)
        except KeyError:
            raise CheckpointError(
                f"expected tensor {name!r} in {self.folder}, found none"
            ) from None
        if path not in self._open_files:
            self._open_files[path] = open_safetensors(path)
        return self._open_files[path]


def _tensor_files(folder: Path) -> dict[str, Path]:
    index = folder / _INDEX
    if index.is_file():
        names = read_json(index)["weight_map"]
        return {name: folder / file for name, file in names.items()}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"expected model.safetensors or {_INDEX} in {folder}, found neither; evomerge reads "
            "safetensors only: convert other formats with save_pretrained"
        )
    return _names_in({file: open_safetensors(file) for file in files})


def _names_in(files: Mapping[Path, Any]) -> dict[str, Path]:
    return {name: path for path, file in files.items() for name in file.keys()}  # noqa: SIM118


def open_safetensors(path: Path) -> Any:
    """Map a safetensors file into memory.

    Raises:
        CheckpointError: It is missing or broken.
    """
    if not path.is_file():
        raise CheckpointError(f"expected a safetensors file at {path}, found none; fetch it again")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: {err}; fetch it again"
        ) from err


def stored_dtype(file: Any, name: str, path: Path) -> torch.dtype:
    """Read a tensor's dtype off an open file.

    Args:
        file: From ``open_safetensors``.
        name: Tensor name.
        path: Of the file; named in faults.

    Raises:
        CheckpointError: It is a dtype of quantised models.
    """
    found = file.get_slice(name).get_dtype()
    if found not in DTYPES:
        raise CheckpointError(
            f"expected tensors of dtype {', '.join(DTYPES)}, got {name} of {found} in {path}; save "
            "a quantised model in bfloat16 first"
        )
    return DTYPES[found]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        CheckpointError: It is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise CheckpointError(f"expected a JSON file at {path}: {err}") from err
    if not isinstance(content, dict):
        raise CheckpointError(f"expected a JSON object in {path}, got {type(content).__name__}")
    return content
