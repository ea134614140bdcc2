"""Estimates with standard errors: means over objectives, differences, Wilson intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from evomerge.arrays import FloatArray

__all__ = [
    "Estimate",
    "confidence_interval",
    "difference",
    "difference_interval",
    "is_clear",
    "mean",
    "wilson_interval",
]


_LARGE = 1000.0  # from here on, as counts are, a number is shown by its first digits


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: The point estimate.
        stderr: Its standard error (one sigma, same unit); NaN where none is known.
    """

    value: float
    stderr: float = math.nan

    def __str__(self) -> str:
        value = f"{self.value:.3f}" if abs(self.value) < _LARGE else f"{self.value:.4g}"
        return value if math.isnan(self.stderr) else f"{value} ± {self.stderr:.3f}"


def mean(
    values: Sequence[float], stderr: Sequence[float], shares: Sequence[float] | None = None
) -> Estimate:
    """Average independent measurements.

    Args:
        values: At least one, e.g. one score per task.
        stderr: One per value; one NaN makes the result's standard error NaN.
        shares: How much each counts; they sum to 1. Absent: each has the same say.

    Returns:
        The mean, and ``sqrt(sum((share * stderr)**2))``: different tasks share no items, so their
        errors are independent.

    Raises:
        ValueError: No values, or another number of standard errors.
    """
    if not values or len(values) != len(stderr):
        raise ValueError(
            f"expected one standard error per value and at least one value, got {len(values)} "
            f"values and {len(stderr)} standard errors"
        )
    if shares is None:
        shares = [1 / len(values)] * len(values)
    terms = [share * value for share, value in zip(shares, values, strict=True)]
    noise = [share * error for share, error in zip(shares, stderr, strict=True)]
    return Estimate(math.fsum(terms), math.hypot(*noise))


def difference(left: Estimate, right: Estimate) -> Estimate:
    """Subtract two estimates as if independent.

    Two models scored on the same items err together as a rule, so the standard error is then an
    upper bound, not an exact figure.

    Returns:
        ``left - right``.
    """
    return Estimate(left.value - right.value, math.hypot(left.stderr, right.stderr))


def is_clear(estimate: Estimate, *, sigmas: float = 2.0) -> bool:
    """Say whether an estimate differs from zero by more than its noise.

    Args:
        estimate: Usually a `difference`.
        sigmas: How many standard errors count as noise; 2 is about 95 % confidence.

    Returns:
        False also when the standard error is unknown.
    """
    return abs(estimate.value) > sigmas * estimate.stderr


def confidence_interval(
    value: float, stderr: float, n: int | None, *, is_share: bool = False
) -> tuple[float, float]:
    """Bound a score at 95 %.

    Args:
        value: The score.
        stderr: Its standard error; NaN makes the bounds NaN.
        n: Items, where the score is the share of them solved: the bounds are then Wilson's.
        is_share: Whether it is a share of something else; the bounds stay between 0 and 1.

    Returns:
        Lower and upper bound.
    """
    if n is not None:
        return wilson_interval(min(1.0, max(0.0, value)), n)
    half = NormalDist().inv_cdf(0.975) * stderr
    if is_share:
        return max(value - half, 0.0), min(value + half, 1.0)  # NaN stays NaN
    return value - half, value + half


def difference_interval(gains: FloatArray) -> tuple[float, float]:
    """Bound the mean of paired differences at 95 %.

    Args:
        gains: (n,) one model's item scores minus another's on the same items; at least one.

    Returns:
        Lower and upper bound; NaN for a single item that is not right or wrong. Differences of
        items that are right or wrong get Bonett and Price's interval, which
        holds for few items and keeps its width where no item differs; others the normal one.

    Source:
        Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial
        proportions based on paired data".
    """
    z, n = NormalDist().inv_cdf(0.975), len(gains)
    if np.isin(gains, (-1.0, 0.0, 1.0)).all():
        won, lost = ((gains == sign).sum() for sign in (1, -1))
        p, q = (won + 1) / (n + 2), (lost + 1) / (n + 2)
        half = z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
        return max(-1.0, p - q - half), min(1.0, p - q + half)
    half = z * float(np.std(gains, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return float(np.mean(gains)) - half, float(np.mean(gains)) + half


def wilson_interval(accuracy: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Bound a proportion; unlike ``accuracy ± 2 stderr`` it holds for few items and near 0 or 1.

    Args:
        accuracy: Share of items solved, in [0, 1].
        n: Items.
        confidence: Coverage, in (0, 1).

    Returns:
        Lower and upper bound, inside [0, 1].

    Raises:
        ValueError: An argument is out of its range.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not (0 <= accuracy <= 1 and n >= 1 and 0 < confidence < 1):
        raise ValueError(
            "expected accuracy in [0, 1], n >= 1 and confidence in (0, 1), "
            f"got {accuracy}, {n} and {confidence}"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + (z / (2 * n)) ** 2)
    # At accuracy 0 and 1 a bound is exact; rounding must not move it outside.
    return max(0.0, min(accuracy, centre - half)), min(1.0, max(accuracy, centre + half))
