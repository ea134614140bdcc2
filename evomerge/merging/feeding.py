"""Brings base and experts to what needs them on the live model's device, wherever they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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


_Place = Callable[[str], torch.device]


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


def make_supply(
    sources: Sources,
    devices: Sequence[torch.device],
    residency: Residency,
    places: Mapping[str, torch.device] | None = None,
) -> Supply:
    """Make what brings base and experts to a worker.

    Args:
        sources: Models to merge.
        devices: Of the worker.
        residency: Where base and experts are to be.
        places: Device of each tensor of the live model; what has none is for the first.
    """
    place = partial(_place, places or {}, devices[0])
    match residency:
        case "mapped":
            return Supply(partial(_merge, sources.tensors), sources.tensor, sources.tensors)
        case "resident":
            there = _Resident(sources, place)
            return Supply(partial(_merge, there.tensors), there.tensor, there.tensors)
        case "streamed":
            copied = partial(_copied, sources, place)
            return Supply(_streamed(sources, devices), sources.tensor, copied)


def _streamed(sources: Sources, devices: Sequence[torch.device]) -> Feed:
    """Stream to each device what is merged there, one after the other."""
    feeds = {}
    for device in devices:
        with _current(device):
            feeds[device] = StreamedFeed(sources, device)
    if len(feeds) == 1:
        return feeds[devices[0]]

    def feed(planned: Iterable[PlannedTensor]) -> None:
        by_device = defaultdict(list)
        for one in planned:
            by_device[one.out.device].append(one)
        for device, group in by_device.items():
            with _current(device):
                feeds[device](group)

    return feed


def _current(device: torch.device) -> AbstractContextManager[object]:
    return nullcontext() if device.type == "cpu" else torch.get_device_module(device).device(device)


def _merge(sources: ReadTensors, planned: Iterable[PlannedTensor]) -> None:
    merge_all(MergeJob(p.plan, *sources(p.name, p.plan.prepared), p.out) for p in planned)


def _place(places: Mapping[str, torch.device], otherwise: torch.device, name: str) -> torch.device:
    return places.get(name, otherwise)


def _copied(
    sources: Sources, place: _Place, name: str, prepared: str | None = None
) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
    base, experts = sources.tensors(name, prepared)
    device = place(name)
    there = tuple(expert.to(device) for expert in experts)
    return None if base is None else base.to(device), there


class _Resident:
    """Base and experts where what is merged of them is; each is copied there once, when asked for.

    Prepared task vectors are copied at each use: how many there are shows only from recipes.
    """

    def __init__(self, sources: Sources, place: _Place) -> None:
        self._copied = partial(_copied, sources, place)
        self._base = None if sources.base is None else _copies(sources.base, place)
        self._experts = {name: _copies(expert, place) for name, expert in sources.experts.items()}

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


def _copies(model: TensorSource, place: _Place) -> Callable[[str], torch.Tensor]:
    return cache(lambda name: model.tensor(name).to(place(name)))
