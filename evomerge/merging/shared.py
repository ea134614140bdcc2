"""Experts that are computed, at memory speed: once per machine, then mapped by every process."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch

from evomerge.cache import hold, say_unusable
from evomerge.errors import CheckpointError
from evomerge.fingerprint import fingerprint
from evomerge.models.checkpoint import Checkpoint, StoredTensor, open_safetensors
from evomerge.models.expert import TensorSource, content_digest
from evomerge.models.merged_vocabulary import OnMergedVocabulary
from evomerge.models.writer import TensorForm, write_safetensors

__all__ = ["SharedExpert", "mapped", "only_one", "shared_expert"]

_ARITHMETIC = 1  # raise when adapters or deltas of the same files get other values


class SharedExpert:
    """An expert whose computed tensors lie in a file that all processes map.

    Tensors that the expert does not compute are those of its own files. Disk: 4 bytes per computed
    parameter.

    Args:
        source: An adapter, a delta or an aligned model.
        folder: Holds one file per expert, named by what the files of the expert hold; any process
            that finds none, or a damaged one, writes it.

    Raises:
        CheckpointError: The file cannot be written.
        OSError: The folder cannot be used.
    """

    def __init__(self, source: TensorSource, folder: Path) -> None:
        self._source = source
        self._names = {name for name in source.layout.names if len(source.parts(name)) > 1}
        content = f"{_ARITHMETIC}-{content_digest(source)}"
        self._computed = self._mapped(folder / f"{content}.safetensors")

    @property
    def layout(self) -> Checkpoint:
        """See ``TensorSource``."""
        return self._source.layout

    @property
    def files(self) -> tuple[Path, ...]:
        """See ``TensorSource``."""
        return self._source.files

    @property
    def computation(self) -> str:
        """See ``TensorSource``."""
        return self._source.computation

    def tensor(self, name: str) -> torch.Tensor:
        """See ``TensorSource``; always mapped."""
        if name in self._names:
            return self._computed.get_tensor(name)  # type: ignore[no-any-return]
        return self._source.tensor(name)

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """See ``TensorSource``."""
        return self._source.parts(name)

    @property
    def computed_from(self) -> TensorSource:
        """The adapter, delta or aligned model."""
        return self._source

    def _mapped(self, file: Path) -> Any:
        forms = {n: TensorForm(torch.float32, self.layout.shape(n)) for n in self._names}
        with only_one(file) as note:
            found = mapped(file, note, forms, self._source.tensor)
            self._held = hold(file)
            return found


def shared_expert(source: TensorSource, folder: Path) -> TensorSource:
    """Map the computed tensors of an expert; where no file can be kept, leave it as it is."""
    if isinstance(source, Checkpoint) and not isinstance(source, OnMergedVocabulary):
        return source
    try:
        return SharedExpert(source, folder)
    except (OSError, CheckpointError) as err:
        say_unusable(folder, err)
        return source


def mapped(
    file: Path,
    note: TextIO,
    forms: Mapping[str, TensorForm],
    tensor_of: Callable[[str], torch.Tensor],
) -> Any:
    """Open a file of computed tensors; one that is not there, or is damaged, is written.

    Args:
        file: Where.
        note: From ``only_one``.
        forms: What it holds.
        tensor_of: Computes one of its tensors.

    Returns:
        The open file, as ``open_safetensors`` gives it.

    Raises:
        CheckpointError: The file cannot be written.
    """
    if not _holds_all(file, forms) or fingerprint(file) != note.read():
        write_safetensors(file, forms, tensor_of)
        note.truncate(0)
        note.write(fingerprint(file))
    return open_safetensors(file)


def _holds_all(file: Path, forms: Mapping[str, TensorForm]) -> bool:
    """Tell whether a file is there, whole, and of these tensors."""
    try:
        found = open_safetensors(file)
    except CheckpointError:
        return False
    return set(found.keys()) == forms.keys()


@contextmanager
def only_one(file: Path) -> Iterator[TextIO]:
    """Let one process at a time look for a file and write it; its lock holds its fingerprint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        yield lock
