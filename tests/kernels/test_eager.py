"""The eager kernel against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from evomerge.kernels.eager import merge_eager
from evomerge.kernels.plan import Elect, RandomMask, Sum, TensorPlan
from evomerge.kernels.reference import merge_reference
from tests.kernels.plans import Case, cases

TOLERANCE = {torch.float32: 5e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_equals_the_reference_on_any_plan_shape_and_dtype(case: Case) -> None:
    out = case.buffer()
    merge_eager(case.plan, case.base, case.experts, out)
    expected = merge_reference(case.plan, case.base, case.experts)
    if case.plan.normalize_by_mask:
        # Where signed coefficients nearly cancel, the quotient is ill-conditioned by nature.
        sane = expected.abs() < 50
        out, expected = out[sane], expected[sane]
    # Dividing by a tiny keep probability makes numbers large: compare what the dtype can hold.
    finite = expected.abs() < torch.finfo(case.out_dtype).max
    tolerance = TOLERANCE[case.out_dtype]
    torch.testing.assert_close(
        out[finite].double(), expected[finite], rtol=tolerance, atol=tolerance
    )


def test_tiles_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    base, expert = torch.randn(2, 1000)
    plan = TensorPlan((0.7,), sparse=(RandomMask(key=5, keep=0.5),))
    whole, tiled = torch.empty(1000), torch.empty(1000)
    merge_eager(plan, base, [expert], whole)
    monkeypatch.setattr("evomerge.kernels.eager._TILE", 64)
    merge_eager(plan, base, [expert], tiled)
    assert torch.equal(whole, tiled)


def test_a_plan_that_reads_no_base_runs_without_one() -> None:
    expert = torch.tensor([1.0, -2.0])
    out = torch.empty(2)
    merge_eager(TensorPlan((2.0,), delta=False, base_coefficient=0.0), None, [expert], out)
    assert out.tolist() == [2.0, -4.0]


@pytest.mark.parametrize(("zero", "elected"), [(1, 0.5), (-1, -0.5), (0, 0.0)])
def test_a_zero_vote_elects_the_sign_asked_for(zero: int, elected: float) -> None:
    base = torch.zeros(1)
    out = torch.empty(1)
    plan = TensorPlan((1.0, 1.0), combine=Elect(zero=zero), normalize_by_mask=True)  # type: ignore[arg-type]
    merge_eager(plan, base, [torch.tensor([0.5]), torch.tensor([-0.5])], out)
    assert out.item() == elected


def test_cancelling_coefficients_do_not_explode() -> None:
    base = torch.zeros(1)
    out = torch.empty(1)
    plan = TensorPlan((0.5, -0.5), combine=Sum(), normalize_by_mask=True)
    merge_eager(plan, base, [torch.tensor([1.0]), torch.tensor([-1.0])], out)
    assert out.item() == 1.0
