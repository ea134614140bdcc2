"""The guard on the product of scales: folding divides by it, in low precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from evomerge.space.sloped import exp, log

__all__ = ["guarded", "unguarded"]


def guarded(scales: Sequence[float], limit: float) -> tuple[float, ...]:
    """Keep the product of the scales up to each hop between 1/limit and limit, exclusively.

    The logarithm x of each product goes through a monotone map: itself while |x| is at most
    h = log(limit) / 2, then h + h u / (1 + u) with u = |x| / h - 1. So different scales stay
    different, each moves towards 1 or not at all, and small products are left as they are.

    Args:
        scales: Positive, one per hop.
        limit: Greater than 1.
    """
    half = math.log(limit) / 2
    return _mapped(scales, lambda x: _beyond(x, half, lambda u: u / (1 + u)))


def unguarded(scales: Sequence[float], limit: float) -> tuple[float, ...] | None:
    """Undo ``guarded``, up to rounding; ``None`` if some product is not within the limit."""
    half = math.log(limit) / 2
    try:
        return _mapped(scales, lambda x: _beyond(x, half, _inverse))
    except ValueError:
        return None


def _mapped(scales: Sequence[float], of_log: Callable[[float], float]) -> tuple[float, ...]:
    """Apply a map to the logarithm of every partial product."""
    found: list[float] = []
    before = mapped_before = 0.0
    for scale in scales:
        product = before + log(scale)
        mapped = of_log(product)
        untouched = mapped == product and mapped_before == before
        found.append(scale if untouched else exp(mapped - mapped_before))
        before, mapped_before = product, mapped
    return tuple(found)


def _beyond(x: float, half: float, of_excess: Callable[[float], float]) -> float:
    """Map what exceeds ``half`` on either side, in units of ``half``."""
    if abs(x) <= half:
        return x
    size = half + half * of_excess(abs(x) / half - 1)
    return size if x > 0 else -size


def _inverse(v: float) -> float:
    if v >= 1:
        raise ValueError("beyond the limit")
    return v / (1 - v)
