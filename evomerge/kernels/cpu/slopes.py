"""Sums up slopes with compiled loops, on as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from evomerge.kernels.adjoint import Adjoint
from evomerge.kernels.cpu.compiling import compiled_slope_loop
from evomerge.kernels.cpu.merging import flat_array, thread_pool
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.numbers import Numbers
from evomerge.kernels.scalars import FloatArray, Scalars
from evomerge.kernels.structure import Structure

__all__ = ["slopes_cpu"]

_PART = (
    1 << 18
)  # elements for one thread at a time; a power of two, so that words are not straddled


def slopes_cpu(jobs: Iterable[SlopeJob]) -> list[Scalars]:
    """Find the slopes along the scalars of plans; the same numbers whatever the threads.

    Uses ``torch.get_num_threads()`` threads. The first job of a new structure compiles.

    Args:
        jobs: Supported by compiled kernels (``structure.has_compiled_slopes``), on CPU.

    Returns:
        Slopes per job.
    """
    return [_slopes(job) for job in jobs]


def _slopes(job: SlopeJob) -> Scalars:
    structure = Structure.of_slopes(job)
    loop, names = compiled_slope_loop(structure), Adjoint.of(structure).names
    numbers = Numbers.of(job.plan)
    base = [] if job.base is None else [job.base]
    streams = [flat_array(tensor) for tensor in (job.gradient, *base, *job.experts)]
    n, columns = job.gradient.numel(), job.merge.columns

    def sums(start: int) -> FloatArray:
        found = np.zeros(len(names))
        arrays = (numbers.each, numbers.shared, numbers.keys, found, *streams, *numbers.tables)
        loop(start, min(start + _PART, n), columns, *arrays)
        return found

    threads = torch.get_num_threads()
    each = map if threads == 1 or n <= _PART else thread_pool(threads).map
    total = np.zeros(len(names)) + sum(each(sums, range(0, n, _PART)))
    return Scalars.named(dict(zip(names, total.tolist(), strict=True)), structure.n_experts)
