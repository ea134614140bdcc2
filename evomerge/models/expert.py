"""Experts: full models, adapters and differences of models behind one seam."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch

from evomerge.errors import CheckpointError
from evomerge.fingerprint import digest_of, fingerprint
from evomerge.models.adapter import Adapter
from evomerge.models.checkpoint import Checkpoint, StoredTensor
from evomerge.models.loading import read_loading
from evomerge.models.opening import OpenModel, open_model
from evomerge.models.reference import AdapterRef, AlignedRef, DeltaRef, ModelRef, resolve_adapter
from evomerge.models.tiles import row_blocks

__all__ = ["Delta", "TensorSource", "content_digest", "open_expert", "tensor_bytes"]


class TensorSource(Protocol):
    """The tensors of one expert, read-only; the same call gives the same values on any machine.

    A tensor with one part is that part, mapped from its file. A tensor with several parts is
    computed from them in float32 at each call: one tensor of memory.
    """

    @property
    def layout(self) -> Checkpoint:
        """The full checkpoint that has the same tensor names and shapes."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that its values depend on."""

    @property
    def computation(self) -> str:
        """What its values depend on beside its files; empty for most."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor of the expert; never write into it."""

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """List the stored tensors that one tensor is made of."""


def tensor_bytes(source: TensorSource, name: str) -> int:
    """Tell the size of a tensor as ``tensor`` returns it, without reading or computing it."""
    parts = source.parts(name)
    dtype = torch.float32 if len(parts) > 1 else parts[0].dtype
    return math.prod(source.layout.shape(name)) * dtype.itemsize


def content_digest(source: TensorSource) -> str:
    """Name what all tensors of an expert hold, wherever its files are.

    Raises:
        OSError: A file cannot be read.
    """
    files = fingerprint(*source.files)
    return digest_of(files, source.computation) if source.computation else files


def open_expert(
    reference: ModelRef, base: Checkpoint | None, open_full: OpenModel = open_model
) -> TensorSource:
    """Open an expert that is made of its own files and the base's; reads headers only.

    Args:
        reference: Where it comes from; no aligned model, which it takes more to open.
        base: The recipe's base, which deltas are added to.
        open_full: Opens the full models that it is made of.

    Raises:
        CheckpointError: Something is missing, unreadable or does not fit together.
    """
    match reference:
        case AdapterRef(adapter=adapter, on=on):
            return Adapter(resolve_adapter(adapter), open_full(on))
        case DeltaRef(model=model, minus=minus):
            if base is None:
                raise CheckpointError(
                    f"expected a base that {reference} can be added to, the recipe has none"
                )
            return _delta(base, open_full(model), open_full(minus))
        case AlignedRef():
            raise CheckpointError(f"expected a model of its own files, got {reference}")
        case _:
            return open_full(reference)


def _delta(base: Checkpoint, model: Checkpoint, minus: Checkpoint) -> TensorSource:
    plain = minus.folder.resolve() == base.folder.resolve()  # base + (model - base)
    return model if plain else Delta(base, model, minus)


class Delta:
    """An expert whose task vector is the difference of two models: base + (model - minus).

    Args:
        base: The recipe's base.
        model: What is subtracted from.
        minus: What is subtracted; has the tensors of ``model``.

    Raises:
        CheckpointError: The two models do not fit together.
    """

    def __init__(self, base: Checkpoint, model: Checkpoint, minus: Checkpoint) -> None:
        self.layout = model.named({name: name for name in model.names if name in minus})
        self._base, self._model, self._minus = base, model, minus
        for name in sorted({*_loaded(model), *_loaded(minus)}):
            found = [m.shape(name) if name in m else "no such tensor" for m in (model, minus)]
            if found[0] != found[1]:
                raise CheckpointError(
                    f"expected {name} alike in both models of a delta, got {found[0]} in "
                    f"{model.folder} and {found[1]} in {minus.folder}; a difference needs models "
                    "of one architecture and vocabulary"
                )

    computation = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """See ``TensorSource``."""
        return (*self._base.files, *self._model.files, *self._minus.files)

    def tensor(self, name: str) -> torch.Tensor:
        """See ``TensorSource``."""
        base, model, minus = (part.tensor for part in self.parts(name))
        out = torch.empty(model.shape, dtype=torch.float32)
        for rows in row_blocks(out.shape):
            out[rows] = base[rows].double() + (model[rows].double() - minus[rows].double())
        return out

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """See ``TensorSource``."""
        models = (self._base, self._model, self._minus)
        return tuple(part for model in models for part in model.parts(name))


def _loaded(checkpoint: Checkpoint) -> Iterable[str]:
    """List the tensors that matter: those that transformers loads, where that is known."""
    given = {own: name for name, own in checkpoint.own_names.items()}
    loading = read_loading(checkpoint.config, given)
    return checkpoint.names if loading is None else [given[own] for own in loading.live]
