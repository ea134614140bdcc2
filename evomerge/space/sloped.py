"""Numbers that know how they depend on the genes: forward differentiation of a space's decoding.

A decoding is little arithmetic on very many genes, each of which reaches few numbers of the recipe.
So every number carries its own slopes along the genes that it came from, and all come out of one
decoding: exact, and as fast for ten thousand genes as a decoding is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["Sloped", "clipped", "exp", "expm1", "log", "log1p", "number"]


class Sloped(float):
    """A number with its slopes along genes.

    Calculates as the number does. It equals only numbers with the same slopes, so that what comes
    from different genes is not taken for one.

    Attributes:
        slopes: By gene; genes that it does not depend on are left out.
    """

    slopes: Mapping[str, float]

    def __new__(cls, value: float, slopes: Mapping[str, float]) -> Sloped:
        """Make a number."""
        made = super().__new__(cls, value)
        made.slopes = slopes
        return made

    def __eq__(self, other: object) -> bool:
        return float.__eq__(self, other) is True and self.slopes == _slopes(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return float.__hash__(self)

    def __add__(self, other: float) -> Sloped:
        return Sloped(float.__add__(self, other), _mixed(self, 1.0, other, 1.0))

    __radd__ = __add__

    def __sub__(self, other: float) -> Sloped:
        return Sloped(float.__sub__(self, other), _mixed(self, 1.0, other, -1.0))

    def __rsub__(self, other: float) -> Sloped:
        return -self + other

    def __mul__(self, other: float) -> Sloped:
        return Sloped(float.__mul__(self, other), _mixed(self, other, other, self))

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> Sloped:
        value = float.__truediv__(self, other)
        return Sloped(value, _mixed(self, 1.0 / float(other), other, -value / float(other)))

    def __rtruediv__(self, other: float) -> Sloped:
        value = float.__rtruediv__(self, other)
        return Sloped(value, _mixed(self, -value / float(self), other, 1.0 / float(self)))

    def __neg__(self) -> Sloped:
        return Sloped(-float(self), _mixed(self, -1.0, 0.0, 0.0))

    def __abs__(self) -> Sloped:
        return self if self >= 0 else -self


def number(value: float | bool | str) -> float:
    """Take a value for a number; it keeps the slopes it has."""
    return value if isinstance(value, Sloped) else float(value)


def exp(x: float) -> float:
    """``math.exp``."""
    value = math.exp(x)
    return _through(x, value, value)


def expm1(x: float) -> float:
    """``math.expm1``."""
    return _through(x, math.expm1(x), math.exp(x))


def log(x: float) -> float:
    """``math.log`` of a positive number."""
    return _through(x, math.log(x), 1.0 / float(x))


def log1p(x: float) -> float:
    """``math.log1p`` of a number above -1."""
    return _through(x, math.log1p(x), 1.0 / (1.0 + float(x)))


def clipped(x: float, low: float, high: float) -> float:
    """Move a number that is outside a range by a rounding error to its edge; slopes stay."""
    return _through(x, min(max(float(x), float(low)), float(high)), 1.0)


def _through(x: float, value: float, derivative: float) -> float:
    return Sloped(value, _mixed(x, derivative, 0.0, 0.0)) if isinstance(x, Sloped) else value


def _slopes(x: object) -> Mapping[str, float]:
    return x.slopes if isinstance(x, Sloped) else {}


def _mixed(x: float, of_x: float, y: float, of_y: float) -> dict[str, float]:
    """Slopes of a function of two numbers, whose own slopes along x and y are given."""
    found = {gene: float(of_x) * slope for gene, slope in _slopes(x).items()}
    for gene, slope in _slopes(y).items():
        found[gene] = found.get(gene, 0.0) + float(of_y) * slope
    return found
