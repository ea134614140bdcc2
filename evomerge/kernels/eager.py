"""The one pass in plain torch, tile by tile: runs on any device, needs no compiler."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evomerge.kernels.masks import MASK_BITS, keep_threshold
from evomerge.kernels.plan import Band, RandomMask, TensorPlan

__all__ = ["merge_eager"]

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
        base: Base tensor; may be ``None`` if the plan reads no base.
        experts: One tensor per coefficient, shaped like ``out``, on the same device.
        out: Contiguous tensor of the output dtype; overwritten.
    """
    flat_out = out.view(-1)
    flat_base = None if base is None else base.reshape(-1)
    flat_experts = [expert.reshape(-1) for expert in experts]
    for start in range(0, flat_out.numel(), _TILE):
        tile = slice(start, start + _TILE)
        theta_0 = flat_base[tile].float() if flat_base is not None else None
        sources = [expert[tile].float() for expert in flat_experts]
        flat_out[tile] = _merge_tile(plan, theta_0, sources, start).to(out.dtype)


def _merge_tile(
    plan: TensorPlan, theta_0: torch.Tensor | None, experts: list[torch.Tensor], start: int
) -> torch.Tensor:
    sources = experts
    if plan.delta and theta_0 is not None:
        sources = [expert - theta_0 for expert in experts]
    masks: list[torch.Tensor | None] = [_kept(plan, i, tau, start) for i, tau in enumerate(sources)]
    kept = [tau if m is None else tau * m for tau, m in zip(sources, masks, strict=True)]
    contributions = [c * tau for c, tau in zip(plan.coefficients, kept, strict=True)]
    if plan.elect == "sum":
        elected = torch.where(_sum(contributions) >= 0, 1.0, -1.0)
        agreeing = [x.sign() == elected for x in contributions]
        contributions = [x * m for x, m in zip(contributions, agreeing, strict=True)]
        masks = [*agreeing]
    merged = _sum(contributions)
    if plan.normalize_by_mask:
        mixing = plan.mixing if plan.mixing is not None else plan.coefficients
        ones = torch.ones_like(merged)
        divisor = _sum([c * (ones if m is None else m) for c, m in zip(mixing, masks, strict=True)])
        merged = merged / torch.where(divisor.abs() < 1e-8, 1.0, divisor)
    merged = merged * plan.scale
    if plan.base_coefficient == 0.0 or theta_0 is None:
        return merged
    return plan.base_coefficient * theta_0 + merged


def _sum(terms: list[torch.Tensor]) -> torch.Tensor:
    total = terms[0].clone()
    for term in terms[1:]:
        total += term
    return total


def _kept(plan: TensorPlan, i: int, tau: torch.Tensor, start: int) -> torch.Tensor | None:
    match plan.sparse[i] if plan.sparse is not None else None:
        case None:
            return None
        case Band(low=low, high=high):
            magnitude = tau.abs()
            return (magnitude >= low) & (magnitude <= high)
        case RandomMask(key=key, keep=keep):
            return _hash24(key, start, tau) < keep_threshold(keep)


def _hash24(key: int, start: int, like: torch.Tensor) -> torch.Tensor:
    """Same integers as ``masks.hash24``; int64 arithmetic, since torch lacks unsigned shifts."""
    index = torch.arange(start, start + like.numel(), device=like.device, dtype=torch.int64)
    mixed = _mix((index & 0xFFFFFFFF) ^ (key & 0xFFFFFFFF))
    mixed = _mix((mixed + ((key >> 32) & 0xFFFFFFFF) + (index >> 32) * 0x9E3779B1) & 0xFFFFFFFF)
    return mixed >> (32 - MASK_BITS)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return x ^ (x >> 15)
