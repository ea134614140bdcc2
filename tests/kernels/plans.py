"""Random plans over the whole contract, and tensors to run them on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from evomerge.kernels.job import MergeJob
from evomerge.kernels.plan import (
    Agree,
    Band,
    Clamp,
    Conflict,
    Consensus,
    Elect,
    Largest,
    RandomMask,
    RankedMask,
    RowBand,
    ScoreMean,
    Sum,
    Table,
    TensorPlan,
    UniqueShared,
    Variance,
)

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (257,), (4, 65), (1, 1)]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
COEFFICIENT = st.floats(-1.5, 1.5).map(lambda x: round(x, 3))
KEY = st.integers(0, 2**63 - 1)


@dataclass(frozen=True)
class Case:
    plan: TensorPlan
    base: torch.Tensor | None
    experts: list[torch.Tensor]
    out_dtype: torch.dtype

    def job(self, out: torch.Tensor | None = None) -> MergeJob:
        return MergeJob(self.plan, self.base, self.experts, self.buffer() if out is None else out)

    def buffer(self) -> torch.Tensor:
        return torch.full(self.experts[0].shape, float("nan"), dtype=self.out_dtype)


@st.composite
def cases(draw: st.DrawFn, shapes: list[tuple[int, ...]] = SHAPES) -> Case:
    shape = draw(st.sampled_from(shapes))
    plan = draw(plans(draw(st.integers(1, 4)), shape))
    torch.manual_seed(draw(st.integers(0, 10_000)))
    dtypes = st.sampled_from(DTYPES)
    base = (
        torch.randn(shape).to(draw(dtypes)) if draw(st.sampled_from([True] * 4 + [False])) else None
    )
    experts = [torch.randn(shape).to(draw(dtypes)) for _ in plan.coefficients]
    return Case(plan, base, experts, draw(dtypes))


@st.composite
def plans(draw: st.DrawFn, n_experts: int, shape: tuple[int, ...]) -> TensorPlan:
    each = st.tuples(*[COEFFICIENT] * n_experts)
    columns = shape[-1] if shape else 1
    rows = math.prod(shape) // max(columns, 1)

    def tables(size: int) -> st.SearchStrategy[tuple[Table | None, ...]]:
        return st.tuples(*[st.none() | table(size, -1.5, 1.5)] * n_experts)

    return TensorPlan(
        coefficients=draw(each),
        delta=draw(st.booleans()),
        base_coefficient=draw(st.sampled_from([0.0, 0.4, 1.0])),
        offset=draw(st.sampled_from([0.0, 0.0, 0.3])),
        sparse=draw(st.none() | st.tuples(*[sparsifiers(rows)] * n_experts)),
        row_scale=draw(st.none() | tables(rows)),
        column_scale=draw(st.none() | tables(columns)),
        gate=draw(st.none() | gates(n_experts)),
        combine=draw(combines(n_experts)),
        normalize_by_mask=draw(st.booleans()),
        mixing=draw(st.none() | each.map(lambda c: tuple(abs(x) for x in c))),
        scale=draw(st.sampled_from([1.0, 0.7, -1.2])),
    )


@st.composite
def table(draw: st.DrawFn, size: int, low: float, high: float) -> Table:
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    return Table(generator.uniform(low, high, size).astype(np.float32))


@st.composite
def knots(draw: st.DrawFn, rows: int) -> Table:
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    values = np.abs(generator.normal(size=(rows, draw(st.sampled_from([2, 5, 17, 64])))))
    if draw(st.booleans()):
        values = np.round(values, 1)  # many equal knots
    return Table(np.sort(values, axis=1).astype(np.float32))


def sparsifiers(rows: int) -> st.SearchStrategy[object]:
    window = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
    return st.one_of(
        st.none(),
        st.builds(Band, low=st.sampled_from([0.0, 0.3, 0.8, float("inf")])),
        st.builds(Band, low=st.just(0.2), high=st.sampled_from([0.5, 1.0])),
        st.builds(RowBand, low=table(rows, 0.0, 1.0), high=table(rows, 0.5, 3.0)),
        st.builds(RandomMask, key=KEY, keep=st.floats(0, 1)),
        st.builds(
            lambda key, window, knots, rescale: RankedMask(key, *window, knots, rescale),
            key=KEY,
            window=window,
            knots=knots(rows),
            rescale=st.booleans(),
        ),
        st.builds(Clamp, limit=st.sampled_from([0.0, 0.5, 2.0])),
    )


def gates(n_experts: int) -> st.SearchStrategy[object]:
    ratios = st.tuples(*[st.floats(0, 1).map(lambda x: round(x, 2))] * n_experts)
    return st.one_of(
        st.builds(Variance, at_least=st.sampled_from([0.0, 0.4, 1.3])),
        st.builds(Conflict, at_most=st.sampled_from([0.0, 0.7, 5.0])),
        st.builds(Consensus, ratios=ratios, at_least=st.integers(1, n_experts + 1)),
    )


def combines(n_experts: int) -> st.SearchStrategy[object]:
    def each(low: float, high: float) -> st.SearchStrategy[tuple[float, ...]]:
        return st.tuples(*[st.floats(low, high).map(lambda x: round(x, 2))] * n_experts)

    votes = st.sampled_from(["weighted", "unweighted", "count"])
    return st.one_of(
        st.just(Sum()),
        st.builds(Elect, vote=votes, zero=st.sampled_from([-1, 0, 1])),
        st.just(Largest()),
        st.builds(Agree, zero=st.sampled_from([-1, 1])),
        st.builds(UniqueShared, unique=each(0.5, 1.5)),
        st.builds(
            ScoreMean, low=each(0, 0.2), high=each(0.2, 3), cut=each(-1, 0.5), top=each(0.5, 4)
        ),
    )
