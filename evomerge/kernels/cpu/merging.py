"""Merges tensors with compiled loops, on as many threads as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.arrays import Float32Array
from evomerge.kernels.cpu.compiling import compiled_loop
from evomerge.kernels.job import MergeJob
from evomerge.kernels.numbers import Numbers
from evomerge.kernels.structure import Structure

__all__ = ["flat_array", "merge_cpu", "thread_pool"]

_SMALLEST_PART = 1 << 17  # elements; handing less to another thread costs more than it saves
_LARGEST_PART = 1 << 20  # elements; small enough that threads finish together
_WORD = 1 << 32

MergePart = Callable[[int, int], None]


def merge_cpu(jobs: Iterable[MergeJob]) -> None:
    """Merge tensors straight into existing buffers; the bytes are those of ``merge_eager``.

    Uses ``torch.get_num_threads()`` threads; the result does not depend on their number. The first
    job of a new structure compiles. Jobs are drawn while earlier ones are being merged.

    Args:
        jobs: Supported by compiled kernels (``structure.is_supported``), on CPU.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for job in jobs:
            merge_part = _prepared(job)
            for part in _parts(job.out.numel(), threads):
                merge_part(*part)
        return
    pool = thread_pool(threads)
    running: list[Future[None]] = []
    try:
        for job in jobs:
            merge_part = _prepared(job)
            parts = _parts(job.out.numel(), threads)
            running += [pool.submit(merge_part, *part) for part in parts]
    finally:
        wait(running)  # also if a job could not be drawn: nobody writes after the return
    for future in running:
        future.result()


def _prepared(job: MergeJob) -> MergePart:
    """What merges the elements of a job from a start to a stop."""
    structure = Structure.of(job)
    loop = compiled_loop(structure)
    numbers = Numbers.of(job.plan)
    base = [job.base] if job.base is not None and structure.base else []
    buffers = [flat_array(tensor) for tensor in (job.out, *base, *job.experts)]

    def merge_part(start: int, stop: int) -> None:
        arrays = (numbers.each, numbers.shared, numbers.keys, *buffers, *numbers.tables)
        loop(start, stop, job.columns, *arrays)

    return merge_part


def flat_array(tensor: torch.Tensor) -> NDArray[np.uint16] | Float32Array:
    """View a tensor as loops read it: flat, 16-bit floats as their bits."""
    flat = tensor.detach().reshape(-1)
    array: NDArray[np.uint16] | Float32Array
    array = (flat if flat.dtype == torch.float32 else flat.view(torch.uint16)).numpy()
    return array


def _parts(n: int, threads: int) -> Iterator[tuple[int, int]]:
    """Cut n elements into runs for the threads, and at multiples of 2**32."""
    size = min(max(-(-n // threads), _SMALLEST_PART), _LARGEST_PART)
    size = -(-size // 64) * 64  # threads do not share cache lines
    start = 0
    while start < n:
        stop = min(n, start + size, (start // _WORD + 1) * _WORD)
        yield start, stop
        start = stop


def thread_pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process."""
    return _pool(os.getpid(), threads)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked child must not inherit them."""
    return ThreadPoolExecutor(threads, thread_name_prefix="merge")
