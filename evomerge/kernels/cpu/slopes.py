"""Sums up slopes with compiled loops, on as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from evomerge.arrays import FloatArray
from evomerge.kernels.adjoint import Adjoint
from evomerge.kernels.cpu.compiling import compiled_slope_loop
from evomerge.kernels.cpu.merging import flat_array, thread_pool
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.numbers import Numbers
from evomerge.kernels.scalars import Scalars
from evomerge.kernels.structure import Structure

__all__ = ["slopes_cpu"]

_PART = (
    1 << 18
)  # elements for one thread at a time; a power of two, so that words are not straddled

SumPart = Callable[[int], FloatArray]


def slopes_cpu(jobs: Iterable[SlopeJob]) -> list[Scalars]:
    """Find the slopes along the scalars of plans; the same numbers whatever the threads.

    Uses ``torch.get_num_threads()`` threads; all jobs are queued before any is waited for. The
    first job of a new structure compiles.

    Args:
        jobs: Supported by compiled kernels (``structure.has_compiled_slopes``), on CPU.

    Returns:
        Slopes per job.
    """
    threads = torch.get_num_threads()
    each = map if threads == 1 else thread_pool(threads).map
    queued = []
    for job in jobs:
        structure = Structure.of_slopes(job)
        starts = range(0, job.gradient.numel(), _PART)
        queued.append((structure, each(_prepared(job, structure), starts)))
    return [_added_up(structure, parts) for structure, parts in queued]


def _prepared(job: SlopeJob, structure: Structure) -> SumPart:
    """What sums up the slopes over the part of a job that starts at an element."""
    loop, n_names = compiled_slope_loop(structure), len(Adjoint.of(structure).names)
    numbers = Numbers.of(job.plan)
    base = [] if job.base is None else [job.base]
    streams = [flat_array(tensor) for tensor in (job.gradient, *base, *job.experts)]
    n, columns = job.gradient.numel(), job.merge.columns

    def sum_part(start: int) -> FloatArray:
        sums = np.zeros(n_names)
        arrays = (numbers.each, numbers.shared, numbers.keys, sums, *streams, *numbers.tables)
        loop(start, min(start + _PART, n), columns, *arrays)
        return sums

    return sum_part


def _added_up(structure: Structure, parts: Iterator[FloatArray]) -> Scalars:
    names = Adjoint.of(structure).names
    total = sum(parts, np.zeros(len(names)))
    return Scalars.named(dict(zip(names, total.tolist(), strict=True)), structure.n_experts)
