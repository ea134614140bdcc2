"""Picks the kernel that runs a plan: all give the same bytes, so the pick is only about time.

Slopes are sums, which kernels add up in orders of their own: they agree to float32's precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import groupby

from evomerge.kernels.eager import merge_eager, slopes_eager
from evomerge.kernels.job import Job, SlopeJob
from evomerge.kernels.scalars import Scalars
from evomerge.kernels.structure import Structure, has_compiled_slopes, is_supported

__all__ = ["kernel_choice", "merge_all", "slopes_all"]

Compiled = Callable[[Iterable[Job]], None]

_WORTH_COMPILING = 1 << 24  # elements, which take eager about as long as compiling takes


def merge_all(jobs: Iterable[Job]) -> None:
    """Merge tensors straight into existing buffers, with the fastest kernel there is.

    Many at once are faster than one by one: threads need not wait for each other.

    The kernel is numba's on CPU and Triton's on a GPU. Eager takes over where the package is not
    installed, for the few jobs that compiled kernels leave out (``structure.is_supported``), and on
    CPU for structures that have not met enough elements yet to be worth compiling.

    Args:
        jobs: Drawn while earlier ones are being merged: a buffer is complete only when this
            function returns.
    """
    for device, group in groupby(jobs, lambda job: job.out.device.type):
        compiled = _compiled(device)
        if compiled is not None:
            compiled(_after_eager(group))
        else:
            for job in group:
                merge_eager(job.plan, job.base, job.experts, job.out)


def slopes_all(jobs: Sequence[SlopeJob]) -> list[Scalars]:
    """Find the slopes along the scalars of many plans, with the fastest kernel there is for each.

    Eager also takes over for plans with factors of rows or columns.

    Args:
        jobs: All on one device.

    Returns:
        Slopes per job.
    """
    device = jobs[0].gradient.device.type if jobs else "cpu"
    package = {"cpu": "numba", "cuda": "triton"}.get(device, "")
    is_compiled = [
        bool(package and find_spec(package)) and has_compiled_slopes(job) and _pays(job)
        for job in jobs
    ]
    chosen = [job for job, compiled in zip(jobs, is_compiled, strict=True) if compiled]
    found = iter(_compiled_slopes(device, chosen) if chosen else [])
    return [
        next(found) if compiled else slopes_eager(job)
        for job, compiled in zip(jobs, is_compiled, strict=True)
    ]


def _compiled_slopes(device: str, jobs: Sequence[SlopeJob]) -> list[Scalars]:
    if device == "cuda":
        from evomerge.kernels.gpu import slopes_gpu

        return slopes_gpu(jobs)
    from evomerge.kernels.cpu import slopes_cpu

    return [slopes_cpu(job) for job in jobs]


def _pays(job: SlopeJob) -> bool:
    structure = Structure.of_slopes(job)
    return job.gradient.device.type != "cpu" or _is_worth_compiling(
        (structure, "slopes"), job.gradient.numel()
    )


def kernel_choice(device: str) -> tuple[str, str]:
    """Name the kernel that merges on a type of device (``cpu``, ``cuda``), and say why."""
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


def _after_eager(jobs: Iterable[Job]) -> Iterator[Job]:
    """Merge what eager must or had better do; yield the rest."""
    for job in jobs:
        if is_supported(job) and (
            job.out.device.type != "cpu" or _is_worth_compiling(Structure.of(job), job.out.numel())
        ):
            yield job
        else:
            merge_eager(job.plan, job.base, job.experts, job.out)


_elements: Counter[object] = Counter()  # met by this process


def _is_worth_compiling(code: object, n: int) -> bool:
    _elements[code] += n
    return _elements[code] >= _WORTH_COMPILING
