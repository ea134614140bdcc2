"""Several objectives as one, by a preference that changes from generation to generation."""

from __future__ import annotations

import numpy as np

from evomerge.samplers.unit_cube import FloatArray
from evomerge.seeds import seed_for

__all__ = ["draw_preference", "tchebycheff"]

_AUGMENTATION = 0.05  # of the sum: breaks ties that the worst objective leaves


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
