"""Merges tensors with base and experts brought to the kernel from wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import Job
from evomerge.merging.residency import Residency
from evomerge.merging.sources import Sources
from evomerge.merging.streaming import StreamedFeed
from evomerge.merging.task import Task

__all__ = ["Feed", "make_feed"]

Feed = Callable[[Iterable[Task]], None]
"""Merges tasks, all at once; outputs are complete when the device has caught up."""

_Tensors = Callable[[str], tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]]


def make_feed(sources: Sources, device: torch.device, residency: Residency) -> Feed:
    """Make what merges a worker's candidates.

    Args:
        sources: Models to merge.
        device: Of the live model.
        residency: Where base and experts are to be.
    """
    match residency:
        case "mapped":
            return partial(_merge, sources.tensors)
        case "resident":
            return partial(_merge, _resident(sources, device))
        case "streamed":
            return StreamedFeed(sources, device)


def _merge(tensors: _Tensors, tasks: Iterable[Task]) -> None:
    merge_all(Job(task.plan, *tensors(task.name), task.out) for task in tasks)


def _resident(sources: Sources, device: torch.device) -> _Tensors:
    @cache
    def tensors(name: str) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
        base, experts = sources.tensors(name)
        there = tuple(expert.to(device) for expert in experts)
        return None if base is None else base.to(device), there

    return tensors
