"""The one pass in float64, whole arrays at a time: slow, obvious, what other kernels must equal.

Sources are float32 and thresholds too, so that all kernels decide on the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.arrays import Float32Array, FloatArray
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.masks import MASK_BITS, hash24, keep_threshold
from evomerge.kernels.numbers import Each
from evomerge.kernels.plan import (
    Agree,
    Band,
    Clamp,
    Combine,
    Conflict,
    Consensus,
    Elect,
    ElementGate,
    Largest,
    RandomMask,
    RankedMask,
    RowBand,
    ScoreMean,
    Sparsifier,
    Sum,
    Table,
    TensorPlan,
    UniqueShared,
    Variance,
)
from evomerge.kernels.scalars import Scalars

__all__ = ["merge_reference", "slopes_reference"]

SourceArray = Float32Array
MaskArray = NDArray[np.bool_]


def merge_reference(
    plan: TensorPlan, base: torch.Tensor | None, experts: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Merge one tensor as the formula of ``TensorPlan`` reads.

    Args:
        plan: The pass.
        base: Base tensor of any floating dtype; ``None`` counts as zeros.
        experts: One tensor per coefficient, shaped like the base.

    Returns:
        float64 tensor of the same shape, not yet rounded to an output dtype.
    """
    made = _Pass.of(plan, base, experts)
    out = plan.offset + plan.base_coefficient * made.theta_0 + plan.scale * made.merged
    return torch.from_numpy(out).reshape(experts[0].shape)


def slopes_reference(job: SlopeJob) -> Scalars:
    """Find the slopes along the scalars of a plan, by hand.

    With g the gradient, w = g · scale / D and p_i the slope of ``combine`` along x_i: the slope
    along c_i is Σ w p_i R_i C_i G M_i τ_i, along a mixing coefficient −Σ w merged / D over the
    elements where the expert takes part, and so on.

    Args:
        job: Tensors of any floating dtype.
    """
    plan, made = job.plan, _Pass.of(job.plan, job.base, job.experts)
    n, g = len(job.experts), _rows(job.gradient).astype(np.float64)
    w = g * plan.scale / made.divisor
    along_x = w * _partials(plan.combine, made)
    rows, columns, c = made.rows, made.columns, np.reshape(plan.coefficients, (n, 1, 1))
    each = np.zeros((n, len(Each)))
    each[:, Each.COEFFICIENT] = _total(along_x * rows * columns * made.sparse_tau)
    each[:, Each.MIXING] = _total(-w * made.merged * made.divides * made.takes_part)
    each[:, Each.LOW] = _total(along_x * c * rows * columns * made.kept * made.limited)
    if isinstance(plan.combine, UniqueShared):
        each[:, Each.UNIQUE] = _total(w * (made.kept.sum(axis=0) == 1) * made.x)
    shared = np.array([(g * made.theta_0).sum(), g.sum(), (g * made.merged).sum(), 0.0])
    along_tables = along_x * c * made.sparse_tau
    by_row, by_column = (along_tables * columns).sum(axis=2), (along_tables * rows).sum(axis=1)
    tables = [
        None if table is None else slopes[i]
        for kind, slopes in ((plan.row_scale, by_row), (plan.column_scale, by_column))
        for i, table in enumerate(kind or (None,) * n)
    ]
    return Scalars(each, shared, tuple(tables))


def _total(values: FloatArray) -> FloatArray:
    total: FloatArray = values.sum(axis=(1, 2))
    return total


@dataclass(frozen=True)
class _Pass:
    """What a merge makes on its way, (experts, rows, columns) or (rows, columns).

    Attributes:
        theta_0: The base.
        tau: Sources.
        limited: Sign of what a clamp has cut, else 0.
        kept: G · M_i.
        sparse_tau: G · M_i τ_i.
        rows: R_i, broadcast from (experts, rows, 1).
        columns: C_i, broadcast from (experts, 1, columns).
        x: Contributions.
        takes_part: Which contributions D counts.
        divides: Where the sum of mixing coefficients is D.
        divisor: D.
        merged: combine_i(x_i) / D.
    """

    theta_0: FloatArray
    tau: FloatArray
    limited: FloatArray
    kept: MaskArray
    sparse_tau: FloatArray
    rows: FloatArray
    columns: FloatArray
    x: FloatArray
    takes_part: MaskArray
    divides: MaskArray
    divisor: FloatArray
    merged: FloatArray

    @classmethod
    def of(
        cls, plan: TensorPlan, base: torch.Tensor | None, experts: Sequence[torch.Tensor]
    ) -> _Pass:
        theta_0 = _rows(base) if base is not None else np.zeros_like(_rows(experts[0]))
        tau = [_rows(expert) - (theta_0 if plan.delta else np.float32(0)) for expert in experts]
        sources, n = np.stack(tau).astype(np.float64), len(tau)
        pairs = [
            _sparsify(what, t) for what, t in zip(plan.sparse or (None,) * n, tau, strict=True)
        ]
        kept, values = np.stack([m for m, _ in pairs]), np.stack([v for _, v in pairs])
        limited = np.sign(sources - values) * _are_clamped(plan, n)
        rows, columns = (
            _factors(plan.row_scale, n, (-1, 1)),
            _factors(plan.column_scale, n, (1, -1)),
        )
        factors = np.reshape(plan.coefficients, (n, 1, 1)) * rows * columns
        kept &= _gate(plan.gate, tau, [*(factors * kept * values)])
        x = factors * kept * values
        merged, takes_part = _combine(plan.combine, x, kept, kept * values, tau)
        divisor, divides = np.ones(merged.shape), np.zeros(merged.shape, bool)
        if plan.normalize_by_mask and isinstance(plan.combine, (Sum, Elect)):
            mixing = plan.mixing if plan.mixing is not None else plan.coefficients
            total = (np.reshape(mixing, (n, 1, 1)) * takes_part).sum(axis=0)
            divides = np.abs(total) >= 1e-8
            divisor = np.where(divides, total, 1.0)
        return cls(
            theta_0.astype(np.float64), sources, limited, kept, kept * values, rows, columns, x,
            takes_part, divides, divisor,
            merged / divisor,
        )  # fmt: skip


def _partials(combine: Combine, made: _Pass) -> FloatArray:
    """Slopes of a combination along its contributions, choices and signs held."""
    x, n = made.x, len(made.x)
    partials: FloatArray = np.ones_like(x)
    match combine:
        case Elect():
            partials = made.takes_part.astype(np.float64)
        case Largest():
            winner = n - 1 - np.argmax(np.abs(x[::-1]), axis=0)
            partials = (np.arange(n)[:, None, None] == winner).astype(np.float64)
        case Agree(zero=zero):
            along = x * _elected(x, zero)
            first = np.arange(n)[:, None, None] == np.argmax(along, axis=0)
            partials = (first & (along > 0)).astype(np.float64)
        case UniqueShared(unique=unique):
            owners = made.kept.sum(axis=0)
            alone = np.reshape(unique, (-1, 1, 1))
            partials = np.where(owners == 1, alone, 1.0 / np.maximum(owners, 1))
        case ScoreMean():
            s = _scores(combine, made.tau)
            partials = s * _clip(combine, made.tau) / np.maximum(s.sum(axis=0), 1e-12)
    return partials


def _rows(tensor: torch.Tensor) -> SourceArray:
    """View as (rows, columns) float32; a 1-D tensor is one row."""
    columns = tensor.shape[-1] if tensor.ndim else 1
    array: SourceArray = tensor.detach().to("cpu", torch.float32).reshape(-1, columns).numpy()
    return array


def _factors(tables: tuple[Table | None, ...] | None, n: int, shape: tuple[int, int]) -> FloatArray:
    """Factors of rows or columns, each broadcast from a shape."""
    each = [None] * n if tables is None else tables
    values = [np.ones(1) if t is None else t.values.astype(np.float64) for t in each]
    longest = max(value.size for value in values)
    return np.stack([np.broadcast_to(v, longest).reshape(shape) for v in values])


def _are_clamped(plan: TensorPlan, n: int) -> MaskArray:
    clamped = [isinstance(what, Clamp) for what in plan.sparse or (None,) * n]
    return np.reshape(clamped, (n, 1, 1))


def _per_row(table: Table) -> SourceArray:
    return table.values[:, None]


def _sparsify(what: Sparsifier | None, tau: SourceArray) -> tuple[MaskArray, FloatArray]:
    """M_i as a mask, and the values that it keeps."""
    magnitude, values = np.abs(tau), tau.astype(np.float64)
    match what:
        case None:
            return np.ones(tau.shape, bool), values
        case Band(low=low, high=high):
            return (magnitude >= np.float32(low)) & (magnitude <= np.float32(high)), values
        case RowBand(low=low, high=high):
            return (magnitude >= _per_row(low)) & (magnitude <= _per_row(high)), values
        case RandomMask(key=key, keep=keep):
            return _random(key, tau) < np.uint32(keep_threshold(keep)), values
        case RankedMask(key=key, low=low, high=high, knots=knots, rescale=rescale):
            rank = np.stack(
                [_rank(row, at) for row, at in zip(magnitude, knots.values, strict=True)]
            )
            probability = np.float32(low) + np.float32(high - low) * rank
            kept = _random(key, tau) < probability * np.float32(1 << MASK_BITS)
            divisor = np.where(kept, probability, 1) if rescale else 1
            return kept, values / divisor
        case Clamp(limit=limit):
            bound = np.float64(np.float32(limit))
            return np.ones(tau.shape, bool), np.clip(values, -bound, bound)


def _random(key: int, tau: SourceArray) -> NDArray[np.uint32]:
    return hash24(key, np.arange(tau.size, dtype=np.uint64)).reshape(tau.shape)


def _rank(magnitude: SourceArray, knots: SourceArray) -> SourceArray:
    """Rank in [0, 1] of each magnitude; of equal knots the last counts."""
    below = np.clip(np.searchsorted(knots, magnitude, side="right") - 1, 0, knots.size - 2)
    low, high = knots[below], knots[below + 1]
    with np.errstate(divide="ignore"):
        inverse = np.where(high > low, np.float32(1) / (high - low), np.float32(1))
    within = np.clip((magnitude - low) * inverse, np.float32(0), np.float32(1))
    rank: SourceArray = (below.astype(np.float32) + within) * np.float32(1 / (knots.size - 1))
    return rank


def _gate(
    gate: ElementGate | None, tau: Sequence[SourceArray], contributions: Sequence[FloatArray]
) -> MaskArray:
    sources = np.stack(tau).astype(np.float64)
    n = len(sources)
    open_: MaskArray
    match gate:
        case None:
            open_ = np.ones(tau[0].shape, bool)
        case Variance(at_least=at_least):
            squares = ((sources - sources.mean(axis=0)) ** 2).sum(axis=0)
            open_ = squares / max(n - 1, 1) >= at_least
        case Conflict(at_most=at_most):
            magnitude = np.abs(sources)
            pairs = [magnitude[i] * magnitude[j] for i in range(n) for j in range(n) if i != j]
            open_ = np.sum(pairs, axis=0) <= at_most if pairs else np.ones(tau[0].shape, bool)
        case Consensus(ratios=ratios, at_least=least):
            x = np.stack(contributions)
            bounds = np.reshape(ratios, (-1, 1, 1)) * np.abs(x.sum(axis=0) - x)
            open_ = (np.abs(x) >= bounds).sum(axis=0) >= least
    return open_


def _combine(
    combine: Combine,
    x: FloatArray,
    kept: MaskArray,
    sparse_tau: FloatArray,
    tau: Sequence[SourceArray],
) -> tuple[FloatArray, MaskArray]:
    """Combine contributions, (experts, rows, columns) each; and who took part."""
    match combine:
        case Sum():
            return x.sum(axis=0), kept
        case Elect(vote=vote, zero=zero):
            ballots = {"weighted": x, "unweighted": sparse_tau, "count": np.sign(x)}[vote]
            agrees = np.sign(x) * _elected(ballots, zero) > 0
            return (x * agrees).sum(axis=0), agrees
        case Largest():
            last_first = x[::-1]
            winner = np.argmax(np.abs(last_first), axis=0)
            return np.take_along_axis(last_first, winner[None], axis=0)[0], kept
        case Agree(zero=zero):
            elected = _elected(x, zero)
            return elected * np.where(x * elected > 0, np.abs(x), 0).max(axis=0), kept
        case UniqueShared(unique=unique):
            owners = kept.sum(axis=0)
            alone = (np.reshape(unique, (-1, 1, 1)) * x).sum(axis=0)
            return np.where(owners == 1, alone, x.sum(axis=0) / np.maximum(owners, 1)), kept
        case ScoreMean():
            sources = np.stack(tau).astype(np.float64)
            clipped, s = x * _clip(combine, sources), _scores(combine, sources)
            return (clipped * s).sum(axis=0) / np.maximum(s.sum(axis=0), 1e-12), kept


def _elected(ballots: FloatArray, zero: int) -> FloatArray:
    sign: FloatArray = np.sign(ballots.sum(axis=0))
    sign[sign == 0] = zero
    return sign


def _clip(combine: ScoreMean, tau: FloatArray) -> FloatArray:
    """What clipping multiplies a change by."""
    low, high = (np.reshape(v, (-1, 1, 1)) for v in (combine.low, combine.high))
    magnitude = np.abs(tau)
    factor: FloatArray = np.clip(magnitude, low, high) / np.where(magnitude > 0, magnitude, 1)
    return factor


def _scores(combine: ScoreMean, tau: FloatArray) -> FloatArray:
    low, high, cut, top = (
        np.reshape(v, (-1, 1, 1)) for v in (combine.low, combine.high, combine.cut, combine.top)
    )
    u = (np.clip(np.abs(tau), low, high) - low) / _span(low, high)
    score = np.exp(len(tau) * u**2) * np.tanh(tau * tau.sum(axis=0))
    s: FloatArray = np.clip((score - cut) / _span(cut, top), 0, 1)
    return s


def _span(low: FloatArray, high: FloatArray) -> FloatArray:
    return np.where(high > low, high - low, 1.0)
