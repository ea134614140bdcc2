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
_DRY = {(1, 0), (2, 1), (6, 2)}  # methods and dtypes: task arithmetic, TIES, DARE with TIES


def run(bench: Bench) -> None:
    """Check the sums of every plan in every dtype, then measure."""
    with bench.part("sums"):
        _check(bench)
    resident = Resident.of(bench)
    for name in list(methods())[: 1 if bench.is_dry else None]:
        with bench.part(name):
            _measure(bench, resident, name)


def _check(bench: Bench) -> None:
    cases = {
        f"{name} {str(dtype).removeprefix('torch.')}": list(
            _jobs(name, dtype, _SHAPES[: 1 if bench.is_dry else None])
        )
        for i, name in enumerate(methods())
        for j, dtype in enumerate(_DTYPES)
        if not bench.is_dry or (i, j) in _DRY
    }
    wrong = []
    for case, jobs in cases.items():
        found = slopes_gpu([_moved(job, bench.device) for job in jobs], block=_block(bench))
        pairs = zip(found, map(slopes_eager, jobs), jobs, strict=True)
        worst = max(slope_error(a, b, job.gradient.numel()) for a, b, job in pairs)
        if not worst <= _TOLERANCE:
            wrong.append(f"{case} by {worst:.1e}")
    bench.checked("slopes are those of plain torch on a CPU", wrong, len(cases))


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
