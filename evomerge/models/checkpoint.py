"""Read-only access to a safetensors checkpoint, memory-mapped, in one file or many shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from evomerge.errors import CheckpointError

__all__ = ["Checkpoint"]

_INDEX = "model.safetensors.index.json"


class Checkpoint:
    """The tensors of one model folder, read lazily.

    Files stay memory-mapped: processes on one machine share a single copy through the page cache.

    Args:
        folder: Holds ``config.json`` and ``model.safetensors`` or a sharded index.

    Raises:
        CheckpointError: Files are missing or are not safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_json(folder / "config.json")
        self._file_of = _tensor_files(folder)
        self._open_files: dict[Path, Any] = {}
        self.names = tuple(sorted(self._file_of))

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def file_of(self, name: str) -> Path:
        """Tell which file holds a tensor."""
        return self._file_of[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Read a tensor's shape without reading its values."""
        return tuple(self._slice(name).get_shape())

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Read every tensor's shape without reading values."""
        return {name: self.shape(name) for name in self.names}

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor into memory.

        Args:
            name: Tensor name as in the file.

        Returns:
            A CPU tensor backed by the file; never write into it.

        Raises:
            CheckpointError: The checkpoint has no such tensor.
        """
        return self._handle(name).get_tensor(name)  # type: ignore[no-any-return]

    def _slice(self, name: str) -> Any:
        return self._handle(name).get_slice(name)

    def _handle(self, name: str) -> Any:
        try:
            path = self._file_of[name]
        except KeyError:
            raise CheckpointError(
                f"expected tensor {name!r} in {self.folder}, found none"
            ) from None
        if path not in self._open_files:
            self._open_files[path] = _open(path)
        return self._open_files[path]


def _tensor_files(folder: Path) -> dict[str, Path]:
    index = folder / _INDEX
    if index.is_file():
        names = _read_json(index)["weight_map"]
        return {name: folder / file for name, file in names.items()}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"expected model.safetensors or {_INDEX} in {folder}, found neither; evomerge reads "
            "safetensors only: convert other formats with save_pretrained"
        )
    return {name: file for file in files for name in _open(file).keys()}  # noqa: SIM118


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as err:
        raise CheckpointError(f"{path} is not a readable safetensors file: {err}") from err


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise CheckpointError(f"expected a JSON file at {path}: {err}") from err
    if not isinstance(content, dict):
        raise CheckpointError(f"expected a JSON object in {path}, got {type(content).__name__}")
    return content
