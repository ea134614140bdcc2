"""Each unit of the base gets a mixture of all units that are like it, instead of one of them.

Between equally many units, exact optimal transport is the assignment that ``weights`` finds; what
is here is transport with an entropy, by Sinkhorn's iterations.
"""

from __future__ import annotations

import numpy as np
import torch

from evomerge.arrays import FloatArray

__all__ = ["transport_plan"]

_ENTROPY = 0.02  # of the mean cost
_N_ITERATIONS = 500
_PRECISION = 1e-6


def transport_plan(cost: FloatArray) -> FloatArray:
    """Spread every unit over the places where it costs little.

    Args:
        cost: (n, n) from place to unit, at least 0.

    Returns:
        (n, n) shares: each row sums to one, and each column nearly so.

    Source:
        Cuturi 2013, arXiv:1306.0895; for models: Imfeld et al. 2024, arXiv:2310.05719.
    """
    scores = torch.from_numpy(-cost / max(_ENTROPY * cost.mean(), np.finfo(float).tiny))
    for _ in range(_N_ITERATIONS):
        scores = scores - scores.logsumexp(0, keepdim=True)
        rows = scores.logsumexp(1, keepdim=True)
        scores = scores - rows
        if rows.abs().max() < _PRECISION:
            break
    return scores.exp().numpy()
