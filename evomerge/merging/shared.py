"""Adapters and deltas at memory speed: computed once per machine, then mapped by every process."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from evomerge.cache import hold
from evomerge.errors import CheckpointError
from evomerge.models.checkpoint import Checkpoint, Part, open_safetensors
from evomerge.models.expert import TensorSource
from evomerge.models.writer import TensorForm, write_safetensors

__all__ = ["SharedExpert", "stamp"]


class SharedExpert:
    """An expert whose computed tensors lie in a file that all processes map.

    Tensors that the expert does not compute are those of its own files. Disk: 4 bytes per computed
    parameter.

    Args:
        source: An adapter or a delta.
        folder: Holds one file per expert, named after what the expert is made of; any process
            that finds none, or a broken one, writes it.

    Raises:
        CheckpointError: The file cannot be written.
    """

    def __init__(self, source: TensorSource, folder: Path) -> None:
        self._source = source
        self._names = {name for name in source.layout.names if len(source.parts(name)) > 1}
        self._computed = self._mapped(folder / f"{stamp(source.files)}.safetensors")

    @property
    def layout(self) -> Checkpoint:
        """See ``TensorSource``."""
        return self._source.layout

    @property
    def files(self) -> tuple[Path, ...]:
        """See ``TensorSource``."""
        return self._source.files

    def tensor(self, name: str) -> torch.Tensor:
        """See ``TensorSource``; always mapped."""
        if name in self._names:
            return self._computed.get_tensor(name)  # type: ignore[no-any-return]
        return self._source.tensor(name)

    def parts(self, name: str) -> tuple[Part, ...]:
        """See ``TensorSource``."""
        return self._source.parts(name)

    def _mapped(self, file: Path) -> Any:
        with _only_one(file):
            if not self._holds_all(file):
                shapes = {name: self.layout.shape(name) for name in self._names}
                forms = {n: TensorForm(torch.float32, shape) for n, shape in shapes.items()}
                write_safetensors(file, forms, self._source.tensor)
            self._held = hold(file)
            return open_safetensors(file)

    def _holds_all(self, file: Path) -> bool:
        """Tell whether a file is there, whole, and of this expert."""
        try:
            found = open_safetensors(file)
        except CheckpointError:
            return False
        return set(found.keys()) == self._names


def stamp(files: Iterable[Path]) -> str:
    """Name the state of some files: 16 hex digits that change when one is replaced or written to.

    Args:
        files: In an order that matters.
    """
    states = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.blake2b(json.dumps(states).encode(), digest_size=8).hexdigest()


@contextmanager
def _only_one(file: Path) -> Iterator[None]:
    """Let one process at a time look for a file and write it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
