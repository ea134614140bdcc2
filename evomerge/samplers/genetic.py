"""NSGA-II on the unit cube, for functions that cost nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evomerge.arrays import FloatArray

__all__ = ["nsga2", "ranks"]

Evaluate = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

_REACH = 0.1  # how far a blend may lie beyond its parents, in their distance
_SPREAD = 0.1  # of a mutation, as a share of an axis


def nsga2(
    evaluate: Evaluate, start: FloatArray, rng: np.random.Generator, *, generations: int
) -> tuple[FloatArray, FloatArray]:
    """Approximate a front.

    Shapes: n = population, d = axes, k = objectives.

    Args:
        evaluate: From points (m, d) to losses (m, k), to be minimised, and violations (m,), 0 where
            feasible.
        start: (n, d), the first population.
        rng: Draws parents and mutations.
        generations: How often n children are made.

    Returns:
        The points of the best front found, and their losses.

    Source:
        Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II"; feasible
        points first as in its section VI.
    """
    n, points = len(start), start
    losses, violations = evaluate(points)
    for _ in range(generations):
        children = _children(points, rng)
        more_losses, more_violations = evaluate(children)
        points = np.vstack([points, children])
        losses = np.vstack([losses, more_losses])
        violations = np.concatenate([violations, more_violations])
        order = ranks(losses, violations)
        best = np.lexsort([-_crowding(losses, order), order])[:n]
        points, losses, violations = points[best], losses[best], violations[best]
    first = ranks(losses, violations) == 0
    return points[first], losses[first]


def ranks(losses: FloatArray, violations: FloatArray) -> NDArray[np.int64]:
    """Return the rank of each point, (n,): 0 where nothing is better, 1 without those, and so on.

    Args:
        losses: (n, k), to be minimised.
        violations: (n,); where it is not 0, only it counts, and any feasible point is better.
    """
    no_worse = np.ones((len(losses), len(losses)), dtype=bool)
    for column in losses.T:
        no_worse &= column[:, None] <= column
    better = no_worse & ~no_worse.T
    feasible = violations <= 0
    both = feasible[:, None] & feasible
    dominates = np.where(both, better, violations[:, None] < violations)
    rank = np.full(len(losses), -1)
    n_better = dominates.sum(axis=0)
    level = 0
    while (front := (n_better == 0) & (rank < 0)).any():
        rank[front] = level
        n_better -= dominates[front].sum(axis=0)
        level += 1
    return rank


def _children(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    n, d = points.shape
    one, other = points[rng.permutation(n)], points[rng.permutation(n)]
    swap = np.where(rng.random((n, d)) < 0.5, one, other)
    share = rng.uniform(-_REACH, 1 + _REACH, (n, d))
    blend = one + share * (other - one)
    children = np.where(rng.random((n, 1)) < 0.5, swap, blend)
    mutates = rng.random((n, d)) < 1.0 / d
    steps = mutates * rng.normal(0.0, _SPREAD, (n, d))
    return np.asarray(np.clip(children + steps, 0.0, 1.0))


def _crowding(losses: FloatArray, rank: NDArray[np.int64]) -> FloatArray:
    """Return how lonely each point is within its front, (n,); infinite at the ends."""
    distance = np.zeros(len(losses))
    for level in range(int(rank.max()) + 1):
        front = np.flatnonzero(rank == level)
        for column in losses[front].T:
            order = front[np.argsort(column, kind="stable")]
            values = np.sort(column)
            distance[order[[0, -1]]] = np.inf
            spread = values[-1] - values[0]
            if spread > 0 and len(order) > 2:
                distance[order[1:-1]] += (values[2:] - values[:-2]) / spread
    return distance
