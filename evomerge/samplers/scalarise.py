"""Several objectives as one: their sum, or by a preference that changes with the generation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.samplers.results import Result
from evomerge.seeds import seed_for

__all__ = ["Scalariser", "draw_preference", "tchebycheff"]

_AUGMENTATION = 0.05  # of the sum: breaks ties that the worst objective leaves


class Scalariser:
    """Turns the results of one generation after the other into losses.

    Its scale is what was seen so far, so the order of generations matters.

    Args:
        seed: The study's seed.
        preference: How much each objective counts in their sum, which is then the loss; empty: a
            preference is drawn for each generation.
    """

    def __init__(self, seed: int, preference: Sequence[float] = ()) -> None:
        self._seed, self._preference = seed, np.array(preference)
        self._seen: FloatArray | None = None  # (2, objectives): the least and the most of each

    def losses(self, results: Sequence[Result], generation: int) -> list[float] | None:
        """Scalarise by the preference of a generation.

        Args:
            results: Of this generation.
            generation: Its number.

        Returns:
            One per result, smaller is better: feasible ones first, then infeasible ones by their
            violation, then pruned ones, then failed ones. ``None`` if none has values: there is
            nothing to learn.
        """
        scored = [r.losses for r in results if r.losses is not None]
        if not scored:
            return None
        values = iter(self._as_one(np.array(scored), generation).tolist())
        losses = [None if r.losses is None else next(values) for r in results]
        return _in_order(results, losses)

    def _as_one(self, scored: FloatArray, generation: int) -> FloatArray:
        if self._preference.size:
            return np.asarray(scored @ self._preference)
        known = scored if self._seen is None else np.vstack([self._seen, scored])
        self._seen = np.array([known.min(axis=0), known.max(axis=0)])
        preference = draw_preference(self._seed, generation, scored.shape[1])
        return tchebycheff(scored, self._seen, preference)


def draw_preference(seed: int, generation: int, n_objectives: int) -> FloatArray:
    """Draw the share of each objective, uniformly among all shares that sum to 1.

    Returns:
        (n_objectives,), in [0, 1].
    """
    rng = np.random.default_rng(seed_for(seed, "preference", generation))
    return rng.dirichlet(np.ones(n_objectives))


def tchebycheff(values: FloatArray, seen: FloatArray, preference: FloatArray) -> FloatArray:
    """Scalarise by the worst objective after preference, plus a little of the sum.

    Shapes: n = points, m = points seen so far, k = objectives; all to be minimised.

    Args:
        values: (n, k), the points to rank.
        seen: (m, k) with m > 0; its ranges put the objectives on one scale.
        preference: (k,), shares of the objectives.

    Returns:
        (n,), smaller is better. One objective is returned as it is.

    Source:
        Knowles 2006, "ParEGO", IEEE TEVC 10(1), equation 2.
    """
    if values.shape[1] == 1:
        return values[:, 0]
    ideal, nadir = seen.min(axis=0), seen.max(axis=0)
    spread = np.where(nadir > ideal, nadir - ideal, 1.0)
    losses = preference * (values - ideal) / spread
    return np.asarray(losses.max(axis=1) + _AUGMENTATION * losses.sum(axis=1))


def _in_order(results: Sequence[Result], losses: Sequence[float | None]) -> list[float]:
    """Put what is not feasible behind what is; only order counts among the rest."""
    worst = max(loss for loss in losses if loss is not None)
    most = max(r.violation for r in results)
    ordered = []
    for result, loss in zip(results, losses, strict=True):
        if loss is None:
            ordered.append(worst + most + (2.0 if result.pruned else 3.0))
        else:
            ordered.append(worst + 1.0 + result.violation if result.violation > 0 else loss)
    return ordered
