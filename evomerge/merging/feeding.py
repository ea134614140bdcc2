"""Brings base and experts to what needs them on the live model's device, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import MergeJob
from evomerge.merging.lowering import PlannedTensor
from evomerge.merging.residency import Residency
from evomerge.merging.sources import Sources
from evomerge.merging.streaming import StreamedFeed
from evomerge.models.expert import TensorSource
from evomerge.recipe.path import BASE

__all__ = ["Feed", "ReadTensor", "ReadTensors", "Supply", "make_supply"]

Feed = Callable[[Iterable[PlannedTensor]], None]
"""Merges tensors, all at once; outputs are complete when the device has caught up."""

ReadTensor = Callable[[str, str], torch.Tensor]
"""Returns one tensor by source (``base`` or an expert's name) and name; never write into it."""


class ReadTensors(Protocol):
    """Returns one tensor of the base (if any) and of every expert; never write into them."""

    def __call__(
        self, name: str, prepared: str | None = None
    ) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
        """See ``Sources.tensors``."""


@dataclass(frozen=True)
class Supply:
    """What a worker gets from base and experts.

    Attributes:
        feed: Merges its candidates.
        tensor: Reads single tensors for layers that run unmerged, on the device if they are
            resident there.
        tensors: Reads one tensor of the base (if any) and of every expert, on the device.
    """

    feed: Feed
    tensor: ReadTensor
    tensors: ReadTensors


def make_supply(sources: Sources, device: torch.device, residency: Residency) -> Supply:
    """Make what brings base and experts to a worker.

    Args:
        sources: Models to merge.
        device: Of the live model.
        residency: Where base and experts are to be.
    """
    match residency:
        case "mapped":
            return Supply(partial(_merge, sources.tensors), sources.tensor, sources.tensors)
        case "resident":
            there = _Resident(sources, device)
            return Supply(partial(_merge, there.tensors), there.tensor, there.tensors)
        case "streamed":
            copied = partial(_copied, sources, device)
            return Supply(StreamedFeed(sources, device), sources.tensor, copied)


def _merge(sources: ReadTensors, planned: Iterable[PlannedTensor]) -> None:
    merge_all(MergeJob(p.plan, *sources(p.name, p.plan.prepared), p.out) for p in planned)


def _copied(
    sources: Sources, device: torch.device, name: str, prepared: str | None = None
) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
    base, experts = sources.tensors(name, prepared)
    there = tuple(expert.to(device) for expert in experts)
    return None if base is None else base.to(device), there


class _Resident:
    """Base and experts on a device; each tensor is copied there once, when first asked for.

    Prepared task vectors are copied at each use: how many there are shows only from recipes.
    """

    def __init__(self, sources: Sources, device: torch.device) -> None:
        self._copied = partial(_copied, sources, device)
        self._base = None if sources.base is None else _copies(sources.base, device)
        self._experts = {name: _copies(expert, device) for name, expert in sources.experts.items()}

    def tensor(self, source: str, name: str) -> torch.Tensor:
        if source != BASE:
            return self._experts[source](name)
        assert self._base is not None  # recipes without a base do not name it
        return self._base(name)

    def tensors(
        self, name: str, prepared: str | None = None
    ) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
        if prepared is not None:
            return self._copied(name, prepared)
        base = None if self._base is None else self._base(name)
        return base, tuple(expert(name) for expert in self._experts.values())


def _copies(model: TensorSource, device: torch.device) -> Callable[[str], torch.Tensor]:
    return cache(lambda name: model.tensor(name).to(device))
