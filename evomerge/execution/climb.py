"""A climb: a few steps of a candidate's genes along the slopes of its objectives' losses.

All genes move in the unit cube of their ranges (those on a logarithmic scale, of their logarithms),
so that a step is as long along one as along another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

from evomerge.arrays import FloatArray
from evomerge.errors import EvaluationError
from evomerge.execution.protocol import Climb, Climbed
from evomerge.seeds import seed_for
from evomerge.space.depth import families
from evomerge.space.protocol import Params, SearchSpace

__all__ = ["Factors", "SlopedGenes", "Slopes", "climb", "drawn_items"]


_MEMORY, _SCALE_MEMORY = 0.8, 0.95  # of slopes and their squares, from step to step
_STEEPER = 2.0  # than 1 is a sum that has outgrown the scales of its objectives
_TINY = 1e-12


Factors: TypeAlias = tuple[float, ...]
"""What the loss of every objective of the study is multiplied with in a sum; 0: left out."""


@dataclass(frozen=True)
class Slopes:
    """What a step learns of a sum of objectives' losses.

    Attributes:
        losses: Of each objective in the sum the mean of its items, to be minimised; as they are,
            without factors.
        along: The sum's slope along every gene that has one, per unit of the gene's own value.
        n_items: Items that went forward and backward.
    """

    losses: tuple[float, ...]
    along: Mapping[str, float]
    n_items: int


class SlopedGenes:
    """The genes that may have slopes, as axes of a unit cube.

    Args:
        space: Whose genes they are; those that are no real numbers, or cannot vary, are no axes.
    """

    def __init__(self, space: SearchSpace) -> None:
        axes = {
            name: gene
            for name, gene in space.distributions.items()
            if isinstance(gene, FloatDistribution) and not gene.single()
        }
        self._axes = axes
        self._log = np.array([gene.log for gene in axes.values()], dtype=np.bool_)
        ends = np.array([(gene.low, gene.high) for gene in axes.values()]).reshape(-1, 2)
        self._low = self._scaled(ends[:, 0])
        self._width = self._scaled(ends[:, 1]) - self._low
        named = families(space.depths)
        self._family = _numbered([named.get(name, name) for name in axes])

    def encode(self, params: Params) -> FloatArray:
        """Return the point (axes,) of params with a value for every gene."""
        values = np.array([float(params[name]) for name in self._axes])
        return np.asarray((self._scaled(values) - self._low) / self._width)

    def decode(self, point: FloatArray, params: Params) -> dict[str, float | int | str]:
        """Return params with the genes of a point (axes,) in [0, 1]; the others stay."""
        values = self._values(point)
        moved = {
            name: min(max(float(value), gene.low), gene.high)
            for (name, gene), value in zip(self._axes.items(), values, strict=True)
        }
        return {**params, **moved}

    def slopes(self, along: Mapping[str, float], point: FloatArray) -> FloatArray:
        """Return slopes along the axes (axes,) at a point, 0 where a gene has none."""
        own = np.array([along.get(name, 0.0) for name in self._axes])
        return np.asarray(own * self._width * np.where(self._log, self._values(point), 1.0))

    def shared(self, point: FloatArray) -> FloatArray:
        """Return the mean of each axis's family (axes,): what a gene shares with other depths."""
        sums = np.bincount(self._family, point)
        return np.asarray((sums / np.maximum(np.bincount(self._family), 1))[self._family])

    def _scaled(self, values: FloatArray) -> FloatArray:
        return np.asarray(np.where(self._log, np.log(np.where(self._log, values, 1.0)), values))

    def _values(self, point: FloatArray) -> FloatArray:
        scaled = self._low + point * self._width
        return np.asarray(np.where(self._log, np.exp(np.where(self._log, scaled, 0.0)), scaled))


def climb(
    request: Climb,
    genes: SlopedGenes,
    slopes_at: Callable[[Params, int, Sequence[Factors]], Sequence[Slopes]],
) -> Climbed:
    """Take the steps of a request.

    Every step goes down the weighted sum of the objectives' losses, each on the scale of its
    steepest slope, so that no objective takes all. The first step takes the slopes of each
    objective, and so finds the scales; later ones take those of the sum alone, which needs the
    tensors of the models once however many objectives there are. Scales are found again where an
    objective has had no slope, or the sum gets steeper than it can be on these.

    A gene moves at most ``step_size`` in the first step and linearly less in later ones, so that a
    climb has an end; bounds hold. The prior draws a gene to the mean of its family
    (``SlopedGenes.shared``) with ``pull`` times their distance, where 1 is as strong as slopes that
    all agree: what items do not speak for at one depth is what they speak for at all of them. Genes
    without slopes do not move.

    Args:
        request: Where to start, and how to go.
        genes: The axes.
        slopes_at: From params, the number of a step, from 0, and sums of losses to the slopes of
            each sum.

    Returns:
        Where it ended; the losses are those before each step.

    Raises:
        EvaluationError: A loss or slope is not finite.

    Source:
        Kingma & Ba 2015, "Adam", arXiv:1412.6980; the prior apart from it as in Loshchilov &
        Hutter 2019, "Decoupled weight decay regularization", arXiv:1711.05101.
    """
    point = genes.encode(request.params)
    descent = _Descent(request.weights, len(point))
    losses, n_items = [], 0
    for step in range(request.steps):
        found = slopes_at(genes.decode(point, request.params), step, descent.sums())
        _check_finite(found, step)
        losses.append(tuple(loss for s in found for loss in s.losses))
        direction = descent.direction([genes.slopes(s.along, point) for s in found])
        n_items += sum(s.n_items for s in found)
        longest = request.step_size * (1 - step / request.steps)
        prior = request.pull * (genes.shared(point) - point)
        moved = longest * np.clip(direction + np.where(descent.has_slope, prior, 0.0), -1, 1)
        point = np.clip(point + moved, 0.0, 1.0)
    return Climbed(genes.decode(point, request.params), tuple(losses), n_items)


def drawn_items(request: Climb, step: int, objective: int, n: int) -> list[int]:
    """Draw the items of one objective for one step of a climb.

    No item comes twice in a climb before all have come once.

    Args:
        request: Of the climb.
        step: Its number, from 0.
        objective: Its position in the study.
        n: Items that the objective has.

    Returns:
        Their positions in 0 to n - 1, sorted, each once.
    """
    size = min(request.items, n)
    start = step * size
    rounds = range(start // n, (start + size - 1) // n + 1)
    order = np.concatenate([_order(request.seed, objective, each, n) for each in rounds])
    first = start - rounds[0] * n
    drawn = dict.fromkeys(order[first:].tolist())  # over the end of a round, what is new in it
    return sorted(list(drawn)[:size])


class _Descent:
    """Adam's direction over several objectives.

    Args:
        weights: How much each objective counts.
        n_axes: Axes of the points.
    """

    def __init__(self, weights: Sequence[float], n_axes: int) -> None:
        self._weights = np.array(weights) / (sum(weights) or 1.0)
        self._counts = self._weights > 0
        self._scales = np.zeros(len(weights))  # the steepest slope of each that was taken alone
        self._is_scaled = not self._counts.any()
        self._mean, self._square = np.zeros(n_axes), np.zeros(n_axes)
        self._n_steps = 0

    @property
    def has_slope(self) -> NDArray[np.bool_]:
        """Tell (axes,) which have had a slope."""
        return self._square > 0

    def sums(self) -> list[Factors]:
        """Return the sums to find slopes of: of all objectives, or of each alone to scale it.

        Those of weight 0 are in none.
        """
        if self._is_scaled:
            return [tuple(self._factors().tolist())]
        return [tuple(row) for row in np.eye(len(self._weights))[self._counts].tolist()]

    def direction(self, slopes: Sequence[FloatArray]) -> FloatArray:
        """Return where to go (axes,), about 1 along an axis whose slopes agree from step to step.

        Args:
            slopes: Of each of the sums (axes,).
        """
        self._n_steps += 1
        total = self._total(np.array(slopes).reshape(-1, len(self._mean)))
        self._mean += (1 - _MEMORY) * (total - self._mean)
        self._square += (1 - _SCALE_MEMORY) * (total**2 - self._square)
        mean = self._mean / (1 - _MEMORY**self._n_steps)
        square = self._square / (1 - _SCALE_MEMORY**self._n_steps)
        return np.asarray(-mean / (np.sqrt(square) + _TINY))

    def _total(self, rows: FloatArray) -> FloatArray:
        """Return the slopes of the sum of all objectives (axes,), about 1 long or shorter."""
        if self._is_scaled:
            (total,) = rows
            steepness = float(np.linalg.norm(total))
            self._is_scaled = steepness <= _STEEPER
            return np.asarray(total / max(steepness, 1.0))
        steepest = np.maximum(self._scales[self._counts], np.linalg.norm(rows, axis=1))
        self._scales[self._counts] = steepest
        self._is_scaled = bool((steepest > 0).all())
        return np.asarray(self._factors()[self._counts] @ rows)

    def _factors(self) -> FloatArray:
        return np.where(self._scales > 0, self._weights / np.maximum(self._scales, _TINY), 0.0)


def _order(seed: int, objective: int, number: int, n: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed_for(seed, "items", objective, number)).permutation(n)


def _check_finite(found: Sequence[Slopes], step: int) -> None:
    if not all(map(math.isfinite, (x for s in found for x in (*s.losses, *s.along.values())))):
        raise EvaluationError(f"expected finite losses and slopes, got others in step {step}")


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Number names (n,) from 0 in the order in which they first come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)
