"""Shares of one whole as independent numbers: m shares are m - 1 breaks of a stick.

Each break takes part of what the earlier ones left. Breaks that are uniform in [0, 1] give shares
that are uniform over the simplex, and both ways are monotone, so no two lists of breaks give the
same shares. A break of 1 takes everything: the list ends there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evomerge.space.sloped import expm1, log1p

__all__ = ["breaks_of", "even_break", "shares_of"]

_NOTHING = 1e-12  # a rest this small is rounding error


def shares_of(breaks: Sequence[float], n: int) -> tuple[float, ...]:
    """Turn breaks into n shares that sum to one.

    Args:
        breaks: n - 1 numbers in [0, 1], or fewer of which the last is 1.
        n: Number of shares.

    Source:
        Sethuraman 1994, "A constructive definition of Dirichlet priors", with Beta(1, rest)
        quantiles as parts, which is the uniform distribution.
    """
    shares, rest = [], 1.0
    for position, at in enumerate(breaks):
        after = n - 1 - position
        part = 1.0 if at >= 1.0 else -expm1(log1p(-at) / after)
        shares.append(rest * part)
        rest *= 1.0 - part
    shares.append(rest)
    return (*shares, *[0.0] * (n - len(shares)))


def breaks_of(shares: Sequence[float]) -> tuple[float, ...]:
    """Find the breaks that ``shares_of`` turns into these shares."""
    breaks: list[float] = []
    for position in range(len(shares) - 1):
        rest = sum(shares[position:])
        if sum(shares[position + 1 :]) <= _NOTHING:
            return (*breaks, 1.0)
        after = len(shares) - 1 - position
        breaks.append(-math.expm1(after * math.log1p(-max(shares[position], 0.0) / rest)))
    return tuple(breaks)


def even_break(position: int, n: int) -> float:
    """Return the break at a position that gives every one of n the same share."""
    after = n - 1 - position
    return 1.0 - (after / (after + 1)) ** after
