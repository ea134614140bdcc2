"""Low-rank factors of task matrices: found, stacked, and clustered by rank-one units."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evomerge.methods.algebra import task_decomposition
from evomerge.methods.prepared import FactorPair, TaskVectors

__all__ = ["clustered", "factor_pair", "padded"]


def factor_pair(tensor: TaskVectors, expert: int, rank: int) -> FactorPair:
    """Return an expert's known factors, or those of its best approximation of a rank.

    The latter share its singular values equally: U √Σ and √Σ Vᵀ, with signs such that the largest
    number of each column of U is positive.
    """
    factors = tensor.read_factors[expert]()
    if factors is not None:
        return factors
    found = task_decomposition(tensor, expert).top(rank)
    if not len(found.values):
        return found.left, found.right
    signs = found.left.gather(0, found.left.abs().argmax(dim=0, keepdim=True))[0].sign()
    roots = found.values.sqrt() * signs
    return found.left * roots, roots[:, None] * found.right


def padded(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack matrices with equally many rows, filled up with columns of zeros."""
    columns = max(matrix.shape[1] for matrix in matrices)
    fill = [torch.nn.functional.pad(m, (0, columns - m.shape[1])) for m in matrices]
    return torch.stack(fill)


def clustered(points: torch.Tensor, k: int, rounds: int = 100) -> torch.Tensor:
    """Cluster points by k-means, from centres that are far apart; no chance is in it.

    Args:
        points: (n, dimensions).
        k: Clusters, at most n.
        rounds: Most rounds of Lloyd's algorithm.

    Returns:
        (n, k) float32, 1 where a point belongs to a cluster; no cluster is empty.
    """
    centres = points[points.norm(dim=1).argmax()][None]
    while len(centres) < k:
        far = torch.cdist(points, centres).min(dim=1).values
        centres = torch.cat([centres, points[far.argmax()][None]])
    before = torch.zeros(0)
    for _ in range(rounds):
        member = _filled(torch.cdist(points, centres))
        if torch.equal(member, before):
            break
        before = member
        centres = member.T @ points / member.sum(dim=0)[:, None]
    return member


def _filled(distances: torch.Tensor) -> torch.Tensor:
    """Give each point its nearest centre, and a centre without one a point of a larger cluster."""
    k = distances.shape[1]
    nearest = distances.argmin(dim=1)
    for centre in range(k):
        if not (nearest == centre).any():
            count = torch.bincount(nearest, minlength=k)
            is_free = count[nearest] > 1
            nearest[torch.where(is_free, distances[:, centre], torch.inf).argmin()] = centre
    return torch.nn.functional.one_hot(nearest, k).float()
