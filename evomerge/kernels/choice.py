"""Picks the kernel that runs a plan: all give the same bytes, so the pick is only about time.

Slopes are sums, which kernels add up in orders of their own: they agree to float32's precision.
``EVOMERGE_KERNEL=eager`` in the environment of a process keeps all its plans out of compiled
kernels, to compare with them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from itertools import groupby

import torch

from evomerge.errors import ConfigError
from evomerge.kernels.eager import merge_eager, slopes_eager
from evomerge.kernels.job import MergeJob, SlopeJob
from evomerge.kernels.scalars import Scalars
from evomerge.kernels.structure import Structure, has_compiled_slopes, is_supported

__all__ = ["kernel_choice", "merge_all", "slopes_all"]

Compiled = Callable[[Iterable[MergeJob]], None]

_CHOICE = "EVOMERGE_KERNEL"
_WORTH_COMPILING = 1 << 24  # elements, which take eager about as long as compiling takes
_FEWEST_COMPILED = 1 << 16  # elements of a call, for whose slopes eager needs milliseconds


def merge_all(jobs: Iterable[MergeJob]) -> None:
    """Merge tensors straight into existing buffers, with the fastest kernel there is.

    Many at once are faster than one by one: threads need not wait for each other.

    The kernel is numba's on CPU and Triton's on a GPU. Eager takes over where the package is not
    installed, for the few jobs that compiled kernels leave out (``structure.is_supported``), and on
    CPU for structures that have not met enough elements yet to be worth compiling.

    Args:
        jobs: Drawn while earlier ones are being merged: a buffer is complete only when this
            function returns.

    Raises:
        ConfigError: ``EVOMERGE_KERNEL`` names no kernel.
    """
    for device, group in groupby(jobs, lambda job: job.out.device):
        compiled = None if _is_eager_wanted() else _compiled(device.type)
        with _current(device):
            if compiled is not None:
                compiled(_after_eager(group))
            else:
                for job in group:
                    merge_eager(job.plan, job.base, job.experts, job.out)


def slopes_all(jobs: Iterable[SlopeJob]) -> list[Scalars]:
    """Find the slopes along the scalars of many plans, each with the fastest kernel for it.

    Eager takes over where ``merge_all`` lets it, for plans with factors of rows or columns, and
    where all tensors of a call are small together. Which kernel runs depends on the jobs alone, and
    so do the last bits of their sums.

    Args:
        jobs: On any devices.

    Returns:
        Slopes per job, in order.
    """
    jobs = [*jobs]
    are_few = sum(job.gradient.numel() for job in jobs) < _FEWEST_COMPILED
    is_eager = _is_eager_wanted() or are_few
    found: list[Scalars] = []
    by_kernel = groupby(jobs, lambda job: (job.gradient.device, _slope_kernel(job, is_eager)))
    for (device, kernel), group in by_kernel:
        with _current(device):
            found += kernel([*group])
    return found


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Launch kernels on a device: of several GPUs one is the current one."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.device(device)


def _slope_kernel(job: SlopeJob, is_eager: bool) -> Callable[[Sequence[SlopeJob]], list[Scalars]]:
    compiled = None if is_eager else _compiled_slopes(job.gradient.device.type)
    return compiled if compiled and has_compiled_slopes(job) else _slopes_eager


def _slopes_eager(jobs: Sequence[SlopeJob]) -> list[Scalars]:
    return [slopes_eager(job) for job in jobs]


def _is_eager_wanted() -> bool:
    chosen = os.environ.get(_CHOICE, "")
    if chosen not in ("", "eager"):
        raise ConfigError(
            f"expected eager or nothing in the environment variable {_CHOICE}, got {chosen!r}"
        )
    return chosen == "eager"


@cache
def _compiled_slopes(device: str) -> Callable[[Sequence[SlopeJob]], list[Scalars]] | None:
    if device == "cpu" and find_spec("numba"):
        from evomerge.kernels.cpu import slopes_cpu

        return slopes_cpu
    if device == "cuda" and find_spec("triton"):
        from evomerge.kernels.gpu import slopes_gpu

        return slopes_gpu
    return None


def kernel_choice(device: str) -> tuple[str, str]:
    """Name the kernel that merges on a type of device (``cpu``, ``cuda``), and say why.

    Raises:
        ConfigError: ``EVOMERGE_KERNEL`` names no kernel.
    """
    if _is_eager_wanted():
        return "eager", f"plain torch and slow, as {_CHOICE} says"
    package = {"cpu": "numba", "cuda": "triton"}.get(device)
    if package is None:
        return "eager", f"plain torch; there is no compiled kernel for {device}"
    if find_spec(package) is None:
        return "eager", f"plain torch and slow; install {package} for the compiled kernel"
    return package, "compiled once per kind of plan; plain torch for the few that it leaves out"


@cache
def _compiled(device: str) -> Compiled | None:
    if device == "cpu" and find_spec("numba"):
        from evomerge.kernels.cpu import merge_cpu

        return merge_cpu
    if device == "cuda" and find_spec("triton"):
        from evomerge.kernels.gpu import merge_gpu

        return merge_gpu
    return None


def _after_eager(jobs: Iterable[MergeJob]) -> Iterator[MergeJob]:
    """Merge what eager must or had better do; yield the rest."""
    for job in jobs:
        if is_supported(job) and (job.out.device.type != "cpu" or _is_worth_compiling(job)):
            yield job
        else:
            merge_eager(job.plan, job.base, job.experts, job.out)


_elements: Counter[Structure] = Counter()  # met by this process


def _is_worth_compiling(job: MergeJob) -> bool:
    structure = Structure.of(job)
    _elements[structure] += job.out.numel()
    return _elements[structure] >= _WORTH_COMPILING
