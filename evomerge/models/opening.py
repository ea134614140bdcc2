"""Full models opened: with their tensors, or, from the Hub, with no more than their headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.files import read_json
from evomerge.models.reference import (
    cached_snapshot,
    companion_snapshot,
    hub_fault,
    resolve_model,
    split_hub_id,
)

__all__ = ["OpenModel", "open_model", "peek_model"]

OpenModel = Callable[[str], Checkpoint]
"""From the reference of a full model to its checkpoint; raises ``CheckpointError``."""


def open_model(reference: str) -> Checkpoint:
    """Open a full model, downloading it when it is a Hub id that is not here yet."""
    return Checkpoint(resolve_model(reference))


def peek_model(reference: str) -> Checkpoint:
    """Open a full model for its names, shapes and dtypes, without downloading tensors.

    Of a Hub model that is not here yet, the config and the headers of its files are fetched; its
    tensors cannot be read.

    Raises:
        CheckpointError: No such model, or no network to ask about it.
    """
    hub_id = split_hub_id(reference)
    if hub_id is None:
        return open_model(reference)
    snapshot = cached_snapshot(*hub_id)
    if snapshot is not None and _is_whole(snapshot):
        return Checkpoint(snapshot)
    try:
        return _headers(*hub_id)
    except CheckpointError:
        raise
    except Exception as err:  # the hub raises a dozen unrelated types for "not there"
        raise hub_fault(reference, err) from err


def _is_whole(snapshot: Path) -> bool:
    try:
        return all(file.is_file() for file in Checkpoint(snapshot).files)
    except CheckpointError:
        return False


@cache  # a check looks at each model several times
def _headers(repository: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import get_safetensors_metadata, hf_hub_download

    config = Path(hf_hub_download(repository, "config.json", revision=revision))
    if "transformers_weights" in read_json(config):  # headers are those of the usual files
        return open_model(repository if revision is None else f"{repository}@{revision}")
    found = get_safetensors_metadata(repository, revision=revision)
    files = {
        config.parent / name: _HeaderOnly(f"{repository}/{name}", content.tensors)
        for name, content in sorted(found.files_metadata.items())
    }
    return _Peeked(config.parent, files, (repository, revision))


class _Peeked(Checkpoint):
    """A Hub model without tensors, whose tokenizer is fetched when it is asked for."""

    def __init__(
        self, folder: Path, files: Mapping[Path, Any], hub_id: tuple[str, str | None]
    ) -> None:
        super().__init__(folder, files)
        self._hub_id = hub_id

    @property
    def companions(self) -> Path:
        """See ``Checkpoint``; where nothing can be fetched, what is here must do."""
        return _companions(*self._hub_id) or self.folder


@cache
def _companions(repository: str, revision: str | None) -> Path | None:
    try:
        return companion_snapshot(repository, revision)
    except Exception:  # the hub raises a dozen unrelated types for "not there"
        return None


@dataclass(frozen=True)
class _HeaderOnly:
    """What an open safetensors file tells, where there is no more than its header."""

    file: str
    tensors: dict[str, Any]

    def keys(self) -> list[str]:
        return list(self.tensors)

    def get_slice(self, name: str) -> _Stored:
        info = self.tensors[name]
        return _Stored(info.dtype, info.shape)

    def get_tensor(self, name: str) -> None:
        raise CheckpointError(f"expected {name} to be read from a file, {self.file} is on the Hub")


@dataclass(frozen=True)
class _Stored:
    dtype: str
    shape: list[int]

    def get_dtype(self) -> str:
        return self.dtype

    def get_shape(self) -> list[int]:
        return self.shape
