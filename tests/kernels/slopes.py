"""Random jobs for kernels that find slopes, and what to compare them by."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st

from evomerge.kernels.job import SlopeJob
from evomerge.kernels.plan import Clamp, Elect, Sum, TensorPlan
from evomerge.kernels.reference import merge_reference
from evomerge.kernels.scalars import Scalars
from tests.kernels.comparing import flat, slope_error
from tests.kernels.plans import SHAPES, cases


@st.composite
def slope_jobs(draw: st.DrawFn, shapes: list[tuple[int, ...]] = SHAPES) -> SlopeJob:
    """Draw a job away from the jumps of its plan: nothing is 0 that decides by its sign."""
    case = draw(cases(shapes))
    plan = untied(case.plan)
    assume(all(abs(c) > 0.01 for c in plan.coefficients))
    assume(not any(isinstance(what, Clamp) and what.limit == 0 for what in plan.sparse or ()))
    if plan.normalize_by_mask and isinstance(plan.combine, (Sum, Elect)):
        assume(no_divisor_is_small(plan))
    gradient = torch.randn(case.experts[0].shape).to(case.out_dtype)
    return SlopeJob(plan, case.base, case.experts, gradient)


def untied(plan: TensorPlan) -> TensorPlan:
    """Move coefficients so that no two contributions of bfloat16 data are equally large.

    Where they are, which one wins is decided by the last bit of float32 or float64: a jump.
    """
    by = [1 + 1e-3 * np.sqrt(prime) for prime in (2, 3, 5, 7)]
    moved = (c * factor for c, factor in zip(plan.coefficients, by, strict=False))
    return dataclasses.replace(plan, coefficients=tuple(moved))


def no_divisor_is_small(plan: TensorPlan) -> bool:
    """Tell whether no subset of the mixing coefficients nearly cancels; slopes explode there."""
    sums = {0.0}
    for m in plan.mixing or plan.coefficients:
        sums |= {s + m for s in sums}
    return all(s == 0.0 or abs(s) > 0.05 for s in sums) and 0.0 not in (plan.mixing or ())


def objective(job: SlopeJob, plan: TensorPlan) -> float:
    merged = merge_reference(plan, job.base, job.experts)
    return float((merged * job.gradient.double()).sum())


def assert_close(ours: Scalars, theirs: Scalars, job: SlopeJob, tolerance: float) -> None:
    error = slope_error(ours, theirs, job.gradient.numel())
    assert error <= tolerance, (flat(ours), flat(theirs))
