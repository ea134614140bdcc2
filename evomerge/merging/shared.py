"""Adapters and deltas at memory speed: computed once per machine, then mapped by every process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch

from evomerge.cache import hold, say_unusable
from evomerge.errors import CheckpointError
from evomerge.fingerprint import fingerprint
from evomerge.models.checkpoint import Checkpoint, StoredTensor, open_safetensors
from evomerge.models.expert import TensorSource
from evomerge.models.writer import TensorForm, write_safetensors

__all__ = ["SharedExpert", "shared_expert"]

_ARITHMETIC = 1  # raise when adapters or deltas of the same files get other values


class SharedExpert:
    """An expert whose computed tensors lie in a file that all processes map.

    Tensors that the expert does not compute are those of its own files. Disk: 4 bytes per computed
    parameter.

    Args:
        source: An adapter or a delta.
        folder: Holds one file per expert, named by what the files of the expert hold; any process
            that finds none, or a damaged one, writes it.

    Raises:
        CheckpointError: The file cannot be written.
        OSError: The folder cannot be used.
    """

    def __init__(self, source: TensorSource, folder: Path) -> None:
        self._source = source
        self._names = {name for name in source.layout.names if len(source.parts(name)) > 1}
        content = f"{_ARITHMETIC}-{fingerprint(*source.files)}"
        self._computed = self._mapped(folder / f"{content}.safetensors")

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

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """See ``TensorSource``."""
        return self._source.parts(name)

    def _mapped(self, file: Path) -> Any:
        with _only_one(file) as note:
            if not self._holds_all(file) or fingerprint(file) != note.read():
                shapes = {name: self.layout.shape(name) for name in self._names}
                forms = {n: TensorForm(torch.float32, shape) for n, shape in shapes.items()}
                write_safetensors(file, forms, self._source.tensor)
                note.truncate(0)
                note.write(fingerprint(file))
            self._held = hold(file)
            return open_safetensors(file)

    def _holds_all(self, file: Path) -> bool:
        """Tell whether a file is there, whole, and of this expert."""
        try:
            found = open_safetensors(file)
        except CheckpointError:
            return False
        return set(found.keys()) == self._names


def shared_expert(source: TensorSource, folder: Path) -> TensorSource:
    """Map the computed tensors of an expert; where no file can be kept, leave it as it is."""
    if isinstance(source, Checkpoint):
        return source
    try:
        return SharedExpert(source, folder)
    except (OSError, CheckpointError) as err:
        say_unusable(folder, err)
        return source


@contextmanager
def _only_one(file: Path) -> Iterator[TextIO]:
    """Let one process at a time look for a file and write it; its lock holds its fingerprint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        yield lock
