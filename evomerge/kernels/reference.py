"""The one pass in float64, whole arrays at a time: slow, obvious, what other kernels must equal.

Sources are float32 and thresholds too, so that all kernels decide on the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.kernels.masks import MASK_BITS, hash24, keep_threshold
from evomerge.kernels.plan import (
    Agree,
    Band,
    Clamp,
    Combine,
    Conflict,
    Consensus,
    Elect,
    Gate,
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

__all__ = ["merge_reference"]

FloatArray = NDArray[np.float64]
SourceArray = NDArray[np.float32]
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
    shape = experts[0].shape
    theta_0 = _rows(base) if base is not None else np.zeros_like(_rows(experts[0]))
    tau = [_rows(expert) - (theta_0 if plan.delta else np.float32(0)) for expert in experts]
    each = range(len(tau))

    sparse = plan.sparse or (None,) * len(tau)
    pairs = [_sparsify(sparse[i], tau[i]) for i in each]
    kept, sparse_tau = [mask for mask, _ in pairs], [value for _, value in pairs]
    factors = [_factor(plan, i, tau[i]) for i in each]
    before_gate = [f * m * t for f, m, t in zip(factors, kept, sparse_tau, strict=True)]
    gate = _gate(plan.gate, tau, before_gate)
    kept = [m & gate for m in kept]
    sparse_tau = [m * t for m, t in zip(kept, sparse_tau, strict=True)]
    x = np.stack([f * t for f, t in zip(factors, sparse_tau, strict=True)])

    merged, takes_part = _combine(plan.combine, x, np.stack(kept), np.stack(sparse_tau), tau)
    if plan.normalize_by_mask and isinstance(plan.combine, (Sum, Elect)):
        mixing = plan.mixing if plan.mixing is not None else plan.coefficients
        divisor = sum(np.float64(m) * part for m, part in zip(mixing, takes_part, strict=True))
        merged = merged / np.where(np.abs(divisor) < 1e-8, 1.0, divisor)
    out = plan.offset + plan.base_coefficient * theta_0.astype(np.float64) + plan.scale * merged
    return torch.from_numpy(out).reshape(shape)


def _rows(tensor: torch.Tensor) -> SourceArray:
    """View as (rows, columns) float32; a 1-D tensor is one row."""
    columns = tensor.shape[-1] if tensor.ndim else 1
    array: SourceArray = tensor.detach().to("cpu", torch.float32).reshape(-1, columns).numpy()
    return array


def _factor(plan: TensorPlan, i: int, tau: SourceArray) -> FloatArray:
    """c_i R_i C_i, broadcast to the shape of τ."""
    row, column = (t[i] if t else None for t in (plan.row_scale, plan.column_scale))
    rows = np.float64(1) if row is None else _per_row(row).astype(np.float64)
    columns = np.float64(1) if column is None else column.values.astype(np.float64)
    return np.broadcast_to(np.float64(plan.coefficients[i]) * rows * columns, tau.shape)


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
    gate: Gate | None, tau: Sequence[SourceArray], contributions: Sequence[FloatArray]
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
