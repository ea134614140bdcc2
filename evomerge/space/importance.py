"""Which layers matter: how far the experts moved there, and how much they disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from evomerge.arrays import FloatArray

__all__ = ["equal_groups", "layer_importance"]


def layer_importance(gram: FloatArray) -> float:
    """Rate a layer by its task vectors: their size, up to three times as much where they conflict.

    The mean norm is multiplied by 1 + (1 - mean cosine between experts), which is 1 where all
    experts moved alike, 2 where they are orthogonal, 3 where two are opposed.

    Args:
        gram: (k, k) inner products of the k experts' task vectors in this layer.

    Returns:
        Importance, in units of the norm; 0 where nothing moved.
    """
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    others = ~np.eye(len(norms), dtype=bool)
    products = np.outer(norms, norms)
    cosines = np.divide(gram, products, out=np.zeros_like(gram), where=products > 0)
    disagreement = 1.0 - float(cosines[others].mean()) if len(norms) > 1 else 0.0
    return float(norms.mean()) * (1.0 + disagreement)


def equal_groups(importances: Sequence[float], n_groups: int) -> list[int]:
    """Cut layers into runs whose sums of importance differ as little as possible.

    Args:
        importances: One per layer, not negative.
        n_groups: Number of runs, at most one per layer.

    Returns:
        First layer of each run. The sum of squared sums is least (dynamic programming); of equal
        cuts the earliest wins.
    """
    n = len(importances)
    total = list(accumulate(importances, initial=0.0))
    best = [[0.0] + [math.inf] * n]  # best[g][end]: cost of the first `end` layers in g runs
    cut: list[list[int]] = [[0] * (n + 1)]
    for group in range(1, n_groups + 1):
        costs, starts = [math.inf] * (n + 1), [0] * (n + 1)
        for end in range(group, n + 1):
            options = [
                (best[group - 1][start] + (total[end] - total[start]) ** 2, start)
                for start in range(group - 1, end)
            ]
            costs[end], starts[end] = min(options)
        best.append(costs)
        cut.append(starts)
    found, end = [], n
    for group in range(n_groups, 0, -1):
        end = cut[group][end]
        found.append(end)
    return found[::-1]
