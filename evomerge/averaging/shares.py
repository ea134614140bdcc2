"""How much of an average over checkpoints each of them is; shares sum to one, earliest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from evomerge.errors import ConfigError

__all__ = ["Penalty", "ema_shares", "measured_shares", "normalised"]

Penalty: TypeAlias = Literal["power", "softmax"]


def ema_shares(n: int, decay: float) -> tuple[float, ...]:
    """Unroll an exponential moving average that starts at the first of ``n`` checkpoints.

    The recursion m ← decay·m + (1 − decay)·θ leaves decayⁿ⁻¹ of the first checkpoint and
    (1 − decay)·decayⁿ⁻ᵏ of the k-th.

    Raises:
        ConfigError: The decay lies outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ConfigError(f"expected a decay in [0, 1), got {decay:g}; 0.99 is usual")
    return (decay ** (n - 1), *((1 - decay) * decay ** (n - k) for k in range(2, n + 1)))


def measured_shares(
    values: Sequence[float], penalty: Penalty, alpha: float, *, smaller_is_better: bool
) -> tuple[float, ...]:
    """Weigh checkpoints by what was measured at them, better ones more.

    Metrics-Weighted Averaging (Yu and Choi 2025, arXiv:2504.18580) weighs by loss or by step with
    one penalty factor. Its abstract says no more, so these are two forms of it, each by a name.

    Args:
        values: One per checkpoint.
        penalty: ``power``: in proportion to value^±alpha; ``softmax``: to exp(±alpha·value).
        alpha: How much the better ones are preferred; 0 is the plain mean.
        smaller_is_better: As of a loss.

    Raises:
        ConfigError: A power of values that are not above 0, or values that are not finite.
    """
    if not all(map(math.isfinite, values)) or (penalty == "power" and min(values) <= 0):
        wanted = "above 0" if penalty == "power" else "that are finite"
        got = ", ".join(f"{value:g}" for value in values)
        raise ConfigError(f"expected values {wanted} to weigh by, got {got}")
    logs = [math.log(value) if penalty == "power" else value for value in values]
    signed = [(-alpha if smaller_is_better else alpha) * value for value in logs]
    return normalised([math.exp(value - max(signed)) for value in signed])


def normalised(weights: Sequence[float]) -> tuple[float, ...]:
    """Divide weights by their sum.

    Raises:
        ConfigError: They cancel, or are not finite.
    """
    total = math.fsum(weights)
    if not math.isfinite(total) or abs(total) < 1e-8:
        raise ConfigError(f"expected weights whose sum is not 0, got a sum of {total:g}")
    return tuple(weight / total for weight in weights)
