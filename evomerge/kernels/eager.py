"""The one pass in plain torch, tile by tile: runs on any device, needs no compiler.

Other float32 kernels repeat its operations in its order, so that their results are the same bytes.
Its slopes are those that torch finds for the same operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.kernels.job import SlopeJob
from evomerge.kernels.masks import MASK_BITS, keep_threshold
from evomerge.kernels.numbers import Each, Shared
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
    Sparsifier,
    Sum,
    Table,
    TensorPlan,
    UniqueShared,
    Variance,
)
from evomerge.kernels.scalars import Scalars

__all__ = ["merge_eager", "slopes_eager"]

_TILE = 1 << 18  # elements; the temporaries of one tile stay in the cache


def merge_eager(
    plan: TensorPlan,
    base: torch.Tensor | None,
    experts: Sequence[torch.Tensor],
    out: torch.Tensor,
) -> None:
    """Merge one tensor straight into an existing buffer.

    Args:
        plan: The pass.
        base: Base tensor; ``None`` counts as zeros.
        experts: One tensor per coefficient, shaped like ``out``, on the same device.
        out: Contiguous tensor of the output dtype; overwritten.
    """
    flat_out = out.view(-1)
    flat_base = base.reshape(-1) if base is not None and plan.reads_base else None
    flat_experts = [expert.reshape(-1) for expert in experts]
    columns = out.shape[-1] if out.ndim else 1
    for start in range(0, flat_out.numel(), _TILE):
        part = slice(start, start + _TILE)
        theta_0 = flat_base[part].float() if flat_base is not None else None
        sources = [expert[part].float() for expert in flat_experts]
        tile = _Tile(start, sources[0].numel(), columns, out.device)
        flat_out[part] = _merge_tile(plan, theta_0, sources, tile).to(out.dtype)


def slopes_eager(job: SlopeJob) -> Scalars:
    """Find the slopes along the scalars of a plan.

    Products are float32, summed up within a tile; tiles are summed up in float64.

    Args:
        job: Of any plan and floating dtypes.
    """
    leaves = _Leaves(job)
    columns = job.merge.columns
    flat = [tensor.reshape(-1) for tensor in (job.gradient, *job.experts)]
    flat_base = None if job.base is None else job.base.reshape(-1)
    for start in range(0, job.gradient.numel(), _TILE):
        part = slice(start, start + _TILE)
        theta_0 = None if flat_base is None else flat_base[part].float()
        gradient, *sources = [tensor[part].float() for tensor in flat]
        tile = _Tile(start, gradient.numel(), columns, gradient.device)
        with torch.enable_grad():
            _merge_tile(leaves.plan, theta_0, sources, tile).backward(gradient)
    return leaves.slopes()


class _Leaves:
    """The scalars of a job's plan as tensors that torch differentiates along.

    Attributes:
        plan: The plan, with these tensors in the place of its numbers.
    """

    def __init__(self, job: SlopeJob) -> None:
        scalars = Scalars.of(job.plan)
        self._device = job.gradient.device
        self._each = [[self._leaf(x) for x in own] for own in scalars.each]
        self._shared = [self._leaf(x) for x in scalars.shared]
        self._tables = [None if t is None else self._leaf(t) for t in scalars.tables]
        self.plan = self._written_into(job.plan)

    def slopes(self) -> Scalars:
        """Return the slopes found so far."""
        each = np.array([[float(_slope(x)) for x in own] for own in self._each])
        shared = np.array([float(_slope(x)) for x in self._shared])
        tables = (None if t is None else _slope(t).cpu().numpy() for t in self._tables)
        return Scalars(each, shared, tuple(tables))

    def _leaf(self, value: object) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self._device, requires_grad=True)

    def _written_into(self, plan: TensorPlan) -> TensorPlan:
        own = {column: tuple(leaves[column] for leaves in self._each) for column in Each}
        sparse, combine = plan.sparse, plan.combine
        if sparse is not None:
            clamps = zip(sparse, own[Each.LOW], strict=True)
            sparse = tuple(Clamp(_number(x)) if isinstance(s, Clamp) else s for s, x in clamps)
        if isinstance(combine, UniqueShared):
            combine = UniqueShared(_numbers(own[Each.UNIQUE]))
        n = len(plan.coefficients)
        return replace(
            plan,
            coefficients=_numbers(own[Each.COEFFICIENT]),
            mixing=_numbers(own[Each.MIXING]),
            base_coefficient=_number(self._shared[Shared.BASE_COEFFICIENT]),
            offset=_number(self._shared[Shared.OFFSET]),
            scale=_number(self._shared[Shared.SCALE]),
            sparse=sparse,
            combine=combine,
            row_scale=tuple(map(_table, self._tables[:n])),
            column_scale=tuple(map(_table, self._tables[n:])),
        )


def _slope(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _number(leaf: torch.Tensor) -> float:
    return cast(float, leaf)  # 0-dimensional tensors calculate like numbers


def _numbers(leaves: Sequence[torch.Tensor]) -> tuple[float, ...]:
    return tuple(map(_number, leaves))


def _table(leaf: torch.Tensor | None) -> Table | None:
    return None if leaf is None else Table(cast("NDArray[np.floating]", leaf))


@dataclass(frozen=True)
class _Tile:
    """Where a run of consecutive elements lies in its tensor."""

    start: int
    size: int
    columns: int
    device: torch.device

    def index(self) -> torch.Tensor:
        return torch.arange(self.start, self.start + self.size, device=self.device)

    def per_row(self, table: Table) -> torch.Tensor:
        """Rows of a table, repeated for each element: (size, ...)."""
        return self._whole(table)[self.index() // self.columns]

    def per_column(self, table: Table) -> torch.Tensor:
        return self._whole(table)[self.index() % self.columns]

    def _whole(self, table: Table) -> torch.Tensor:
        return torch.as_tensor(table.values).to(self.device, torch.float32)


def _merge_tile(
    plan: TensorPlan, theta_0: torch.Tensor | None, experts: list[torch.Tensor], tile: _Tile
) -> torch.Tensor:
    sources = experts
    if plan.delta and theta_0 is not None:
        sources = [expert - theta_0 for expert in experts]
    sparse = plan.sparse or (None,) * len(sources)
    pairs = [_sparsify(what, tau, tile) for what, tau in zip(sparse, sources, strict=True)]
    masks, values = [mask for mask, _ in pairs], [value for _, value in pairs]
    factors = [_factor(plan, i, tile) for i in range(len(sources))]

    if plan.gate is not None:
        contributions = _contributions(factors, masks, values)
        gate = _gate(plan.gate, sources, contributions)
        masks = [gate if mask is None else mask & gate for mask in masks]
    contributions = _contributions(factors, masks, values)
    if isinstance(plan.combine, Elect):
        elected = _elected(plan.combine, contributions, masks, values)
        masks = [x * elected > 0 for x in contributions]
        contributions = _where(masks, contributions)
    merged = _combine(plan, contributions, masks, sources)

    if plan.normalize_by_mask and isinstance(plan.combine, (Sum, Elect)):
        mixing = plan.mixing if plan.mixing is not None else plan.coefficients
        divisor = _sum(_where(masks, [m * torch.ones_like(merged) for m in mixing]))
        merged = merged / torch.where(divisor.abs() < 1e-8, 1.0, divisor)
    merged = merged * plan.scale
    if _counts(plan.base_coefficient) and theta_0 is not None:
        merged = plan.base_coefficient * theta_0 + merged
    return merged + plan.offset if _counts(plan.offset) else merged


def _counts(number: float) -> bool:
    """Whether a number changes anything, be it only a slope."""
    return isinstance(number, torch.Tensor) or number != 0.0


def _sum(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    total = terms[0].clone()
    for term in terms[1:]:
        total += term
    return total


def _where(
    masks: Sequence[torch.Tensor | None], values: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    return [
        value if mask is None else torch.where(mask, value, 0.0)
        for mask, value in zip(masks, values, strict=True)
    ]


def _contributions(
    factors: Sequence[torch.Tensor | float],
    masks: Sequence[torch.Tensor | None],
    values: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    return _where(masks, [f * value for f, value in zip(factors, values, strict=True)])


def _factor(plan: TensorPlan, i: int, tile: _Tile) -> torch.Tensor | float:
    """c_i R_i C_i."""
    factor: torch.Tensor | float = plan.coefficients[i]
    if plan.row_scale is not None and (row := plan.row_scale[i]) is not None:
        factor = factor * tile.per_row(row)
    if plan.column_scale is not None and (column := plan.column_scale[i]) is not None:
        factor = factor * tile.per_column(column)
    return factor


def _sparsify(
    what: Sparsifier | None, tau: torch.Tensor, tile: _Tile
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The mask M_i (``None`` keeps everything) and the values that it keeps."""
    match what:
        case None:
            return None, tau
        case Band(low=low, high=high):
            magnitude = tau.abs()
            return (magnitude >= low) & (magnitude <= high), tau
        case RowBand(low=low, high=high):
            magnitude = tau.abs()
            return (magnitude >= tile.per_row(low)) & (magnitude <= tile.per_row(high)), tau
        case RandomMask(key=key, keep=keep):
            return _hash24(key, tile.start, tau) < keep_threshold(keep), tau
        case RankedMask(key=key, low=low, high=high, knots=knots, rescale=rescale):
            probability = low + (high - low) * _rank(tau.abs(), tile, knots)
            kept = _hash24(key, tile.start, tau).float() < probability * float(1 << MASK_BITS)
            # What is dropped may be divided by zero, of which slopes would make no number.
            return kept, torch.where(kept, tau / probability, 0.0) if rescale else tau
        case Clamp(limit=limit):
            return None, torch.where(tau > limit, limit, torch.where(tau < -limit, -limit, tau))


def _rank(magnitude: torch.Tensor, tile: _Tile, knots: Table) -> torch.Tensor:
    """Rank in [0, 1] of each magnitude within its row; of equal knots the last counts."""
    at = tile.per_row(knots)
    below = torch.searchsorted(at, magnitude[:, None], right=True) - 1
    below = below.clamp(0, at.shape[1] - 2)
    low, high = at.gather(1, below)[:, 0], at.gather(1, below + 1)[:, 0]
    inverse = torch.where(high > low, 1.0 / (high - low), 1.0)
    within = ((magnitude - low) * inverse).clamp(0.0, 1.0)
    return (below[:, 0].float() + within) * (1.0 / (at.shape[1] - 1))


def _gate(
    gate: Variance | Conflict | Consensus,
    sources: Sequence[torch.Tensor],
    contributions: Sequence[torch.Tensor],
) -> torch.Tensor:
    n = len(sources)
    match gate:
        case Variance(at_least=at_least):
            mean = _sum(sources) * (1.0 / n)
            squares = _sum([(tau - mean) * (tau - mean) for tau in sources])
            return squares * (1.0 / max(n - 1, 1)) >= at_least
        case Conflict(at_most=at_most):
            seen = torch.zeros_like(sources[0])
            pairs = torch.zeros_like(sources[0])
            for tau in sources:
                pairs += tau.abs() * seen
                seen += tau.abs()
            return 2.0 * pairs <= at_most
        case Consensus(ratios=ratios, at_least=at_least):
            total = _sum(contributions)
            votes = [
                x.abs() >= r * (total - x).abs() for r, x in zip(ratios, contributions, strict=True)
            ]
            return _count(votes) >= at_least


def _count(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    return _sum([mask.float() for mask in masks])


def _elected(
    combine: Elect | Agree,
    contributions: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor | None] = (),
    values: Sequence[torch.Tensor] = (),
) -> torch.Tensor:
    ballots = contributions
    if isinstance(combine, Elect) and combine.vote == "unweighted":
        ballots = _where(masks, values)
    if isinstance(combine, Elect) and combine.vote == "count":
        ballots = [x.sign() for x in contributions]
    sign = _sum(ballots).sign()
    return torch.where(sign == 0.0, float(combine.zero), sign)


def _combine(
    plan: TensorPlan,
    contributions: list[torch.Tensor],
    masks: Sequence[torch.Tensor | None],
    sources: Sequence[torch.Tensor],
) -> torch.Tensor:
    match plan.combine:
        case Sum() | Elect():
            return _sum(contributions)
        case Largest():
            best = contributions[0]
            for x in contributions[1:]:
                best = torch.where(x.abs() >= best.abs(), x, best)
            return best
        case Agree():
            elected = _elected(plan.combine, contributions)
            best = torch.zeros_like(elected)
            for x in contributions:
                best = torch.where(x * elected > best, x * elected, best)
            return best * elected
        case UniqueShared(unique=unique):
            ones = torch.ones_like(contributions[0])
            owners = _sum(_where(masks, [ones] * len(masks)))
            alone = _sum([u * x for u, x in zip(unique, contributions, strict=True)])
            shared = _sum(contributions) / owners.clamp(min=1.0)
            return torch.where(owners == 1.0, alone, shared)
        case ScoreMean():
            scores = _scores(plan.combine, sources)
            clips = [_clip(plan.combine, i, tau) for i, tau in enumerate(sources)]
            each = zip(contributions, clips, scores, strict=True)
            weighed = _sum([x * clip * score for x, clip, score in each])
            return weighed / _sum(scores).clamp(min=1e-12)


def _clip(combine: ScoreMean, i: int, tau: torch.Tensor) -> torch.Tensor:
    """What clipping multiplies a change by."""
    magnitude = tau.abs()
    clipped = magnitude.clamp(combine.low[i], combine.high[i])
    return clipped / torch.where(magnitude > 0.0, magnitude, 1.0)


def _scores(combine: ScoreMean, sources: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    total = _sum(sources)
    scores = []
    for i, tau in enumerate(sources):
        low, cut = combine.low[i], combine.cut[i]
        u = (tau.abs().clamp(low, combine.high[i]) - low) / _span(low, combine.high[i])
        score = torch.exp(len(sources) * (u * u)) * torch.tanh(tau * total)
        scores.append(((score - cut) / _span(cut, combine.top[i])).clamp(0.0, 1.0))
    return scores


def _span(low: float, high: float) -> float:
    return high - low if high > low else 1.0


def _hash24(key: int, start: int, like: torch.Tensor) -> torch.Tensor:
    """Same integers as ``masks.hash24``; int64 arithmetic, since torch lacks unsigned shifts."""
    index = torch.arange(start, start + like.numel(), device=like.device, dtype=torch.int64)
    keyed = _mix(index & 0xFFFFFFFF) ^ (key & 0xFFFFFFFF)
    mixed = _mix((keyed + ((key >> 32) & 0xFFFFFFFF) + (index >> 32) * 0x9E3779B1) & 0xFFFFFFFF)
    return mixed >> (32 - MASK_BITS)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return x ^ (x >> 15)
