"""Genes as points of the unit cube, for optimisers that know only real vectors.

A number takes one axis, logarithmic if its range is; each value of a stepped one gets an equal
share of the axis. A category takes one axis per choice, and the largest coordinate wins: choices
have no order, so none is imposed on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import cast

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from evomerge.arrays import FloatArray
from evomerge.samplers.gene_space import GeneValue

__all__ = ["UnitCube", "draw_uniform"]

NumberDistribution = FloatDistribution | IntDistribution

_LEAD = 0.1  # of the chosen category: with a spread of 1/6, it wins 2 of 3 draws against one other
_STEP_SHARE = 0.2  # spread to keep, in steps: one draw in 80 still leaves the middle of a step


@dataclass(frozen=True)
class _Range:
    """Where a number's range lies, on the scale of its axis."""

    number: NumberDistribution
    is_whole: bool  # asked of the class it takes as long as the rest of ``value``
    low: float
    width: float

    @property
    def is_linear(self) -> bool:
        return not self.is_whole and not self.number.log and self.number.step is None

    def share(self, value: float) -> float:
        return (_scale(self.number, value) - self.low) / self.width

    def value(self, share: float) -> GeneValue:
        number, value = self.number, self.low + share * self.width
        if number.log:
            value = math.exp(value)
        if number.step is not None:
            value = number.low + round((value - number.low) / number.step) * number.step
        value = min(max(value, number.low), number.high)
        return int(value) if self.is_whole else value


@dataclass(frozen=True)
class _LinearRanges:
    """Ranges of numbers without steps and logarithms, all at once; to the bit as one by one."""

    low: FloatArray
    width: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, scales: Sequence[_Range | None]) -> _LinearRanges | None:
        ranges = [scale for scale in scales if scale is not None and scale.is_linear]
        if len(ranges) < len(scales):
            return None
        rows = [(scale.low, scale.width, scale.number.high) for scale in ranges]
        return cls(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)

    def values(self, point: FloatArray) -> list[float]:
        values = np.minimum(np.maximum(self.low + point * self.width, self.low), self.high)
        return cast("list[float]", values.tolist())


class UnitCube:
    """Maps params to points and back.

    Args:
        distributions: The genes, in the order of the axes.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = distributions
        self._scales = [_range_of(d) for d in distributions.values()]
        self._linear = _LinearRanges.of(self._scales)  # of most spaces; there are many points

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The gene of each axis."""
        return tuple(name for name, d in self._distributions.items() for _ in range(_n_axes(d)))

    @property
    def min_spreads(self) -> FloatArray:
        """(dimension,) standard deviation below which a stepped gene would be stuck; else 0."""
        return np.array(
            [_min_spread(d) for d in self._distributions.values() for _ in range(_n_axes(d))]
        )

    def encode(self, params: Mapping[str, GeneValue]) -> FloatArray:
        """Return the point (dimension,) of a value for every gene; decodes to the same."""
        point: list[float] = []
        for (name, distribution), scale in zip(
            self._distributions.items(), self._scales, strict=True
        ):
            value = params[name]
            if scale is None:
                assert isinstance(distribution, CategoricalDistribution), "the rest has a scale"
                point += _one_hot(distribution, value)
            else:
                point.append(scale.share(float(value)))
        return np.array(point, dtype=np.float64)

    def decode(self, point: FloatArray) -> dict[str, GeneValue]:
        """Return the params of any point (dimension,) in [0, 1]."""
        if self._linear is not None:
            return dict(zip(self._distributions, self._linear.values(point), strict=True))
        params: dict[str, GeneValue] = {}
        axes = iter(point.tolist())
        for (name, distribution), scale in zip(
            self._distributions.items(), self._scales, strict=True
        ):
            if scale is None:
                votes = list(islice(axes, _n_axes(distribution)))
                params[name] = cast(
                    GeneValue, distribution.to_external_repr(votes.index(max(votes)))
                )
            else:
                params[name] = scale.value(next(axes))
        return params

    def snap(self, points: FloatArray) -> FloatArray:
        """Move points (n, dimension) to the middle of what decodes alike.

        Steps go to their middle, categories to 1 for the choice that wins and 0 for the others:
        the same params have the same point.
        """
        snapped = np.clip(points, 0.0, 1.0)
        start = 0
        for distribution in self._distributions.values():
            axes = slice(start, start := start + _n_axes(distribution))
            snapped[:, axes] = _snapped(distribution, snapped[:, axes])
        return snapped


def draw_uniform(distributions: Mapping[str, BaseDistribution], seed: int) -> dict[str, GeneValue]:
    """Draw a value for every gene, each value of a gene as likely as any other."""
    cube = UnitCube(distributions)
    return cube.decode(np.random.default_rng(seed).random(cube.dimension))


def _n_axes(distribution: BaseDistribution) -> int:
    return len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1


def _one_hot(distribution: CategoricalDistribution, value: GeneValue) -> list[float]:
    axes = [0.5] * len(distribution.choices)
    axes[int(distribution.to_internal_repr(value))] += _LEAD
    return axes


def _snapped(distribution: BaseDistribution, points: FloatArray) -> FloatArray:
    """Snap the axes of one gene, (n, axes)."""
    if isinstance(distribution, CategoricalDistribution):
        winners = points.argmax(axis=1)
        return np.asarray(winners[:, None] == np.arange(points.shape[1]), dtype=np.float64)
    number = _number(distribution)
    if number.step is None:
        return points
    low, high = _edges(number)
    values = low + points * (high - low)
    values = np.exp(values) if number.log else values
    values = number.low + np.round((values - number.low) / number.step) * number.step
    values = np.clip(values, number.low, number.high)
    return np.asarray(((np.log(values) if number.log else values) - low) / (high - low))


def _number(distribution: BaseDistribution) -> NumberDistribution:
    assert isinstance(distribution, FloatDistribution | IntDistribution), "Optuna has no other kind"
    return distribution


def _scale(number: NumberDistribution, value: float) -> float:
    return math.log(value) if number.log else value


def _range_of(distribution: BaseDistribution) -> _Range | None:
    if isinstance(distribution, CategoricalDistribution):
        return None
    number = _number(distribution)
    low, high = _edges(number)
    return _Range(number, isinstance(number, IntDistribution), low, high - low)


def _edges(number: NumberDistribution) -> tuple[float, float]:
    half_step = (number.step or 0) / 2
    return _scale(number, number.low - half_step), _scale(number, number.high + half_step)


def _min_spread(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return 0.0
    number = _number(distribution)
    if number.step is None:
        return 0.0
    return _STEP_SHARE * number.step / (number.high - number.low + number.step)
