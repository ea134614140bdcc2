"""The eager kernel against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.kernels.eager import merge_eager
from evomerge.kernels.plan import Band, RandomMask, TensorPlan
from evomerge.kernels.reference import merge_reference

COEFFICIENT = st.floats(-1.5, 1.5).map(lambda x: round(x, 3))
SPARSE = st.one_of(
    st.none(),
    st.builds(Band, low=st.sampled_from([0.0, 0.3, 0.8, float("inf")])),
    st.builds(Band, low=st.just(0.2), high=st.sampled_from([0.5, 1.0])),
    st.builds(RandomMask, key=st.integers(0, 2**63 - 1), keep=st.floats(0, 1)),
)


@st.composite
def plans(draw: st.DrawFn, n_experts: int) -> TensorPlan:
    each = st.tuples(*[COEFFICIENT] * n_experts)
    return TensorPlan(
        coefficients=draw(each),
        delta=draw(st.booleans()),
        base_coefficient=draw(st.sampled_from([0.0, 0.4, 1.0])),
        sparse=draw(st.none() | st.tuples(*[SPARSE] * n_experts)),
        elect=draw(st.sampled_from(["none", "sum"])),
        normalize_by_mask=draw(st.booleans()),
        mixing=draw(st.none() | each.map(lambda c: tuple(abs(x) for x in c))),
        scale=draw(st.sampled_from([1.0, 0.7, -1.2])),
    )


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    n_experts=st.integers(1, 4),
    shape=st.sampled_from([(1,), (7,), (3, 5), (2, 3, 4), (257,)]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_reference_on_any_plan_shape_and_dtype(
    data: st.DataObject, n_experts: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    plan = data.draw(plans(n_experts))
    torch.manual_seed(seed)
    base = torch.randn(shape).to(dtype)
    experts = [torch.randn(shape).to(dtype) for _ in range(n_experts)]
    out = torch.full(shape, float("nan"), dtype=dtype)
    merge_eager(plan, base, experts, out)
    expected = merge_reference(plan, base, experts)
    if plan.normalize_by_mask:
        # Where signed coefficients nearly cancel, the quotient is ill-conditioned by nature.
        sane = expected.abs() < 50
        out, expected = out[sane], expected[sane]
    tolerance = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


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


def test_a_zero_vote_elects_the_positive_sign() -> None:
    base = torch.zeros(1)
    out = torch.empty(1)
    plan = TensorPlan((1.0, 1.0), elect="sum", normalize_by_mask=True)
    merge_eager(plan, base, [torch.tensor([0.5]), torch.tensor([-0.5])], out)
    assert out.item() == 0.5


def test_cancelling_coefficients_do_not_explode() -> None:
    base = torch.zeros(1)
    out = torch.empty(1)
    plan = TensorPlan((0.5, -0.5), normalize_by_mask=True)
    merge_eager(plan, base, [torch.tensor([1.0]), torch.tensor([-1.0])], out)
    assert out.item() == 1.0
