"""Slopes on the device: the sums of plain torch on a CPU, and bytes per second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from evomerge.kernels.eager import slopes_eager
from evomerge.kernels.gpu import slopes_gpu
from evomerge.kernels.gpu.merging import BLOCK
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.plan import TensorPlan
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.kernel import Resident
from tests.benchmarks.kernels import methods
from tests.benchmarks.shapes import EXPERTS
from tests.kernels.comparing import slope_error

__all__ = ["run"]

_OF_COPY = {"task_arithmetic": 0.6}
_TOLERANCE = 1e-5  # of the largest slope, or of the root of the number of elements
_SHAPES = ((3, 5), (257,), (4, 65), (33, 129), (64, 128))
_DTYPES = (torch.bfloat16, torch.float32, torch.float16)
_DRY = dict(zip(("task_arithmetic", "ties", "dare_ties"), _DTYPES, strict=True))
_SPARE_S = 5.0  # for one more


def run(bench: Bench) -> None:
    """Check the sums of bfloat16, then measure, then check the other dtypes; compiling is slow."""
    with bench.part("sums"):
        _check(bench, _DTYPES[:1])
    resident = Resident.of(bench)
    names = [*_OF_COPY, *(name for name in methods() if name not in _OF_COPY)]
    for name in bench.in_time(names[: 1 if bench.is_dry else None], _SPARE_S):
        with bench.part(name):
            _measure(bench, resident, name)
    with bench.part("sums in other dtypes"):
        _check(bench, _DTYPES[1:])


def _check(bench: Bench, dtypes: Sequence[torch.dtype]) -> None:
    cases = {
        f"{name} {_names([dtype])}": list(
            _jobs(name, dtype, _SHAPES[: 1 if bench.is_dry else None])
        )
        for name in methods()
        for dtype in dtypes
        if not bench.is_dry or _DRY.get(name) == dtype
    }
    wrong, n = [], 0
    for case in bench.in_time(cases, _SPARE_S):
        n, jobs = n + 1, cases[case]
        found = slopes_gpu([_moved(job, bench.device) for job in jobs], block=_block(bench))
        pairs = zip(found, map(slopes_eager, jobs), jobs, strict=True)
        worst = max(slope_error(a, b, job.gradient.numel()) for a, b, job in pairs)
        if not worst <= _TOLERANCE:
            wrong.append(f"{case} by {worst:.1e}")
    bench.checked(f"slopes in {_names(dtypes)}: those of plain torch on a CPU", wrong, n)


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _jobs(name: str, dtype: torch.dtype, shapes: Sequence[tuple[int, ...]]) -> Iterator[SlopeJob]:
    for seed, shape in enumerate(shapes):
        random = torch.Generator().manual_seed(seed)
        base, gradient, *experts = (
            torch.randn(shape, generator=random).to(dtype) for _ in range(EXPERTS + 2)
        )
        yield SlopeJob(_plan(name, shape), base, experts, gradient)


def _plan(name: str, shape: tuple[int, ...]) -> TensorPlan:
    return methods()[name](torch.Size(shape))


def _moved(job: SlopeJob, device: torch.device) -> SlopeJob:
    base = None if job.base is None else job.base.to(device)
    experts = [expert.to(device) for expert in job.experts]
    return SlopeJob(job.plan, base, experts, job.gradient.to(device))


def _block(bench: Bench) -> int:
    return 64 if bench.is_dry else BLOCK  # the interpreter adds one by one


def _measure(bench: Bench, resident: Resident, name: str) -> None:
    *sources, gradients = resident.models
    jobs = [
        SlopeJob(_plan(name, tuple(gradient.shape)), base, experts, gradient)
        for gradient, base, *experts in zip(gradients, *sources, strict=True)
    ]

    def find() -> None:
        slopes_gpu(jobs, block=_block(bench))

    bench.measured(f"{name}: first call, compiles", bench.wall_s(find, repeats=1), "s")
    seconds = bench.wall_s(find)  # the sums are waited for
    rate, copy = (EXPERTS + 2) * resident.n_bytes / seconds, resident.copy_rate(bench)
    note = f"{1000 * seconds:.1f} ms for all slopes, {rate / 1e9:.0f} of {copy / 1e9:.0f} GB/s"
    bench.measured(f"{name}: of the copy", rate / copy, at_least=_OF_COPY.get(name), note=note)
