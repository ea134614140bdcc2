"""Genes as points of a mixed space: continuous axes, steps and categories each of their kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard, cast

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from evomerge.arrays import FloatArray
from evomerge.samplers.gene_space import GeneSpace, GeneValue
from evomerge.samplers.unit_cube import UnitCube

__all__ = ["MixedGenes", "MixedPoint"]

Stepped = FloatDistribution | IntDistribution


@dataclass(frozen=True, eq=False)
class MixedPoint:
    """A point; parts of kinds that the genes lack are empty.

    Attributes:
        numbers: (smooth + stepped,): shares of a range in [0, 1], then indices of steps.
        choices: (categories, most choices), one-hot.
        drawn: ``numbers`` before they were moved into range and onto steps.
        kernel: Which kernel drew it, if there are several.
        centre: Which kernel's centre it is, if it is one.
    """

    numbers: FloatArray
    choices: NDArray[np.bool_]
    drawn: FloatArray
    kernel: int | None = None
    centre: int | None = None


class MixedGenes:
    """Maps params to points and back. Genes with a logarithmic range count as smooth.

    Args:
        space: The genes.
    """

    def __init__(self, space: GeneSpace) -> None:
        genes = space.searched
        self._stepped = {n: d for n, d in genes.items() if _is_stepped(d)}
        self._choices = {n: d for n, d in genes.items() if isinstance(d, CategoricalDistribution)}
        known = self._stepped.keys() | self._choices.keys()
        self._cube = UnitCube({n: d for n, d in genes.items() if n not in known})

    @property
    def n_smooth(self) -> int:
        """Number of genes with a continuous range."""
        return self._cube.dimension

    @property
    def n_steps(self) -> list[int]:
        """Number of values of each stepped gene."""
        return [_index(d, d.high) + 1 for d in self._stepped.values()]

    @property
    def n_choices(self) -> list[int]:
        """Number of choices of each category."""
        return [len(d.choices) for d in self._choices.values()]

    @property
    def n_genes(self) -> int:
        """Number of genes of all kinds."""
        return self.n_smooth + len(self._stepped) + len(self._choices)

    @property
    def ranges(self) -> FloatArray:
        """(smooth + stepped,), how far ``MixedPoint.numbers`` reach from 0."""
        return np.array([1.0] * self.n_smooth + [n - 1.0 for n in self.n_steps])

    def encode(self, params: Mapping[str, GeneValue]) -> MixedPoint:
        """Return the point of a value for every gene."""
        steps = [_index(d, float(params[name])) for name, d in self._stepped.items()]
        numbers = np.concatenate([self._cube.encode(params), np.array(steps, dtype=np.float64)])
        choices = np.zeros((len(self._choices), max(self.n_choices, default=0)), dtype=bool)
        for row, (name, d) in zip(choices, self._choices.items(), strict=True):
            row[int(d.to_internal_repr(params[name]))] = True
        return MixedPoint(numbers, choices, drawn=numbers)

    def decode(self, point: MixedPoint) -> dict[str, GeneValue]:
        """Return a value for every gene that can vary."""
        params = self._cube.decode(point.numbers[: self.n_smooth])
        steps = point.numbers[self.n_smooth :]
        for step, (name, stepped) in zip(steps, self._stepped.items(), strict=True):
            params[name] = _value(stepped, round(step))
        for row, (name, d) in zip(point.choices, self._choices.items(), strict=True):
            params[name] = cast(GeneValue, d.to_external_repr(int(row.argmax())))
        return params


def _is_stepped(distribution: BaseDistribution) -> TypeGuard[Stepped]:
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return False
    return distribution.step is not None and not distribution.log


def _index(d: Stepped, value: float) -> int:
    return round((value - d.low) / cast(float, d.step))


def _value(d: Stepped, index: int) -> GeneValue:
    value = min(d.low + index * cast(float, d.step), d.high)
    return int(value) if isinstance(d, IntDistribution) else value
