"""Slopes along the scalars of a plan: by hand, by torch, and by the formula's own text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from evomerge.kernels import choice
from evomerge.kernels.adjoint import Adjoint
from evomerge.kernels.choice import slopes_all
from evomerge.kernels.cpu import slopes_cpu
from evomerge.kernels.eager import slopes_eager
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.plan import (
    Band,
    Clamp,
    Elect,
    Largest,
    RandomMask,
    RankedMask,
    Table,
    TensorPlan,
    UniqueShared,
)
from evomerge.kernels.reference import slopes_reference
from evomerge.kernels.scalars import Scalars, held
from evomerge.kernels.structure import Structure, has_compiled_slopes
from tests.kernels.comparing import flat
from tests.kernels.plans import Case
from tests.kernels.slopes import assert_close, objective, slope_jobs, untied
from tests.kernels.test_formula import helpers, inputs, numbers

SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
STEP = 1e-6


def moved(plan: TensorPlan, direction: Scalars, size: float) -> TensorPlan:
    """Move all scalars of a plan along a direction."""
    here = Scalars.of(plan)
    each = here.each + size * direction.each
    shared = here.shared + size * direction.shared
    n = len(plan.coefficients)
    tables = [
        None if t is None else Table(t + size * d)
        for t, d in zip(here.tables, direction.tables, strict=True)
    ]
    sparse, combine = plan.sparse, plan.combine
    if sparse:
        sparse = tuple(
            Clamp(each[i, 2]) if isinstance(what, Clamp) else what for i, what in enumerate(sparse)
        )
    if isinstance(combine, UniqueShared):
        combine = UniqueShared(tuple(each[:, 5]))
    return dataclasses.replace(
        plan,
        coefficients=tuple(each[:, 0]),
        mixing=tuple(each[:, 1]),
        sparse=sparse,
        combine=combine,
        base_coefficient=shared[0],
        offset=shared[1],
        scale=shared[2],
        row_scale=tuple(tables[:n]),
        column_scale=tuple(tables[n:]),
    )


def random_direction(plan: TensorPlan, seed: int) -> Scalars:
    random = np.random.default_rng(seed)
    here = Scalars.of(plan)
    tables = [None if t is None else random.normal(size=t.shape) for t in here.tables]
    return Scalars(random.normal(size=here.each.shape), random.normal(size=4), tuple(tables))


@settings(SETTINGS, max_examples=60)
@given(job=slope_jobs())
def test_by_hand_is_what_finite_differences_find(job: SlopeJob) -> None:
    """Limits are float32 for all kernels, so they stay; see the test of the clamp."""
    direction = random_direction(job.plan, 0)
    direction.each[:, 2] = 0.0
    ends = [moved(job.plan, direction, size) for size in (-STEP, STEP)]
    assume(all(held(end) == held(moved(job.plan, direction, 0.0)) for end in ends))
    low, high = (objective(job, end) for end in ends)
    origin, end = Scalars.of(moved(job.plan, direction, 0.0)), Scalars.of(ends[1])
    ours = slopes_reference(job).along(origin, end) / STEP
    scale = max(abs(flat(slopes_reference(job))).max(), 1.0)
    assert ours == pytest.approx((high - low) / (2 * STEP), rel=1e-5, abs=1e-5 * scale)


def run_in_numpy(job: SlopeJob) -> Scalars:
    """Run the source text that compiled kernels compile."""
    structure = Structure.of_slopes(job)
    adjoint = Adjoint.of(structure)
    case = Case(job.plan, job.base, list(job.experts), job.gradient.dtype)
    gradient = job.gradient.float().reshape(-1).numpy()
    with np.errstate(all="ignore"):
        names = {**helpers(case), **inputs(case), **numbers(case, structure), "gradient": gradient}
        exec("\n".join(adjoint.lines), names)
    sums = {name: float(np.sum(names[f"slope_{name}"], dtype=np.float64)) for name in adjoint.names}
    return Scalars.named(sums, structure.n_experts)


@settings(SETTINGS, max_examples=60)
@given(job=slope_jobs())
def test_torch_and_the_text_of_compiled_kernels_find_what_is_found_by_hand(job: SlopeJob) -> None:
    ours = slopes_eager(job)
    assert_close(ours, slopes_reference(job), job, 1e-4)
    if has_compiled_slopes(job):
        assert_close(run_in_numpy(job), ours, job, 1e-5)


def test_of_equal_contributions_one_has_the_slope_and_data_without_them_agree() -> None:
    """0.1 x 3 is 0.3 in float32, and a little more in float64: the last bit decides."""
    experts = [torch.tensor([x], dtype=torch.bfloat16) for x in (3.0, 1.0)]
    plan = TensorPlan((0.1, 0.3), combine=Largest(), delta=False)
    tied, job = (SlopeJob(one, None, experts, torch.ones(1)) for one in (plan, untied(plan)))
    winners = [slopes(tied).each[:, 0].tolist() for slopes in (slopes_eager, slopes_reference)]
    assert winners == [[0.0, 1.0], [3.0, 0.0]]
    assert_close(slopes_eager(job), slopes_reference(job), job, 1e-6)


C = (0.4, -0.7, 0.3)
BASE, ONE, TWO, THREE, GRADIENT = torch.randn(
    5, 700, 301, generator=torch.Generator().manual_seed(0)
)
PLANS = {
    "a sum": TensorPlan(C),
    "a clamp": TensorPlan(C, sparse=(Clamp(0.5), None, Clamp(0.2)), combine=UniqueShared(C)),
    "an election": TensorPlan(
        C, sparse=(Band(0.5), RandomMask(1 << 60, 0.4), None), combine=Elect(), scale=0.6,
        normalize_by_mask=True, mixing=(0.5, 0.6, 0.7),
    ),
}  # fmt: skip


def large_job(plan: TensorPlan, dtype: torch.dtype = torch.bfloat16) -> SlopeJob:
    experts = [expert.to(dtype) for expert in (ONE, TWO, THREE)]
    return SlopeJob(plan, BASE.to(dtype), experts, GRADIENT)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_compiled_kernel_finds_what_torch_finds_on_any_number_of_threads(
    plan: TensorPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.kernels.cpu.slopes._PART", 1 << 16)  # several parts
    job = large_job(plan)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(flat(slopes_cpu([job])[0]))
    torch.set_num_threads(1)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert_close(slopes_cpu([job])[0], slopes_eager(job), job, 1e-5)


def test_gradients_of_every_dtype_and_layout_are_read() -> None:
    job = large_job(PLANS["a sum"])
    expected = flat(slopes_eager(job))
    turned = dataclasses.replace(job, gradient=GRADIENT.T.contiguous().T)
    one, other = slopes_cpu([turned, job])
    assert np.array_equal(flat(one), flat(other))
    halved = dataclasses.replace(job, gradient=GRADIENT.bfloat16())
    np.testing.assert_allclose(flat(slopes_cpu([halved])[0]), expected, atol=2.0)


def test_a_factor_of_zero_has_a_slope() -> None:
    """What a merge leaves out because it is 0, a step may bring in."""
    base, expert, gradient = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.ones(2)
    plan = TensorPlan((0.5,), delta=False, base_coefficient=0.0)
    job = SlopeJob(plan, base, [expert], gradient)
    for slopes in (slopes_eager(job), slopes_reference(job), *slopes_all([job])):
        assert slopes.shared.tolist() == [3.0, 2.0, 4.0, 0.0]  # base, offset, scale
        assert slopes.each[0, 0] == 8.0


def test_what_is_dropped_and_divided_by_zero_is_no_slope() -> None:
    knots = Table(np.array([[0.0, 1.0]], np.float32))
    plan = TensorPlan((0.5,), sparse=(RankedMask(1, 0.0, 0.5, knots, rescale=True),))
    job = SlopeJob(plan, torch.zeros(4), [torch.zeros(4)], torch.ones(4))
    for slopes in (slopes_eager(job), slopes_reference(job), run_in_numpy(job)):
        assert flat(slopes).tolist() == [0.0] * 6 + [0.0, 4.0, 0.0, 0.0]


def test_the_slope_of_a_limit_counts_what_it_cuts() -> None:
    base, expert = torch.zeros(4), torch.tensor([0.3, -2.0, 5.0, 1.0])
    plan = TensorPlan((2.0,), sparse=(Clamp(1.5),))
    job = SlopeJob(plan, base, [expert], torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    for slopes in (slopes_eager(job), slopes_reference(job), run_in_numpy(job)):
        assert slopes.each[0, 2] == 2 * (100 - 10)


def test_scalars_add_up_and_are_not_held() -> None:
    plan = PLANS["a clamp"]
    other = dataclasses.replace(plan, coefficients=(1.0, 2.0, 3.0), scale=3.0, offset=1.0)
    assert held(plan) == held(other)
    assert held(plan) != held(dataclasses.replace(plan, combine=Elect()))
    one = Scalars.of(plan)
    twice = Scalars.sum([one, one])
    assert np.array_equal(flat(twice), 2 * flat(one))
    assert one.along(one, twice) == pytest.approx(float(flat(one) @ flat(one)))


def test_which_kernel_runs_depends_on_the_jobs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(choice, "slopes_eager", lambda _: ran.append("eager"))
    monkeypatch.setattr(
        choice, "_compiled_slopes", lambda _: lambda jobs: [ran.append("cpu") for _ in jobs]
    )
    large = large_job(PLANS["a sum"])
    small = SlopeJob(large.plan, BASE[:1], [e[:1] for e in (ONE, TWO, THREE)], GRADIENT[:1])
    rows = dataclasses.replace(
        large, plan=TensorPlan(C, row_scale=(Table(np.ones(700)), None, None))
    )
    slopes_all([large, small, rows, large])
    assert ran == ["cpu", "cpu", "eager", "cpu"]  # a small one costs little beside large ones
    ran.clear()
    slopes_all([small, small])
    assert ran == ["eager", "eager"]  # which are not worth compiling for
