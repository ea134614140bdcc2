"""Matrix algebra that several methods share, in float32.

Decompositions are thin and of numerical rank: directions in which a matrix has nothing but rounding
are left out, where the papers' code keeps arbitrary ones. So results depend on the matrices alone,
also where experts are alike, did not change, or are adapters of low rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from evomerge.methods.prepared import FactorPair, TaskVectors

__all__ = [
    "Decomposition",
    "decomposed",
    "decomposed_factors",
    "joined",
    "polar",
    "row_factor",
    "summed",
    "task_decomposition",
]


class Decomposition(NamedTuple):
    """The thin singular value decomposition left · diag(values) · right of some matrix.

    Attributes:
        left: (rows, rank), orthonormal columns.
        values: (rank,), descending, above rounding.
        right: (rank, columns), orthonormal rows.
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    def top(self, rank: int) -> Decomposition:
        """Keep the largest values."""
        return Decomposition(self.left[:, :rank], self.values[:rank], self.right[:rank])

    @property
    def matrix(self) -> torch.Tensor:
        """The product."""
        return (self.left * self.values) @ self.right


def decomposed(matrix: torch.Tensor) -> Decomposition:
    """Decompose a matrix; of zeros, it has rank 0."""
    try:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    except RuntimeError:  # now and then float32 does not converge
        wide = torch.linalg.svd(matrix.double(), full_matrices=False)
        left, values, right = (part.float() for part in wide)
    rank = int((values > _rounding(matrix, values)).sum())
    return Decomposition(left, values, right).top(rank)


def decomposed_factors(factors: FactorPair) -> Decomposition:
    """Decompose a product of two factors without multiplying them."""
    left, right = factors
    left_basis, left_rest = torch.linalg.qr(left)
    right_basis, right_rest = torch.linalg.qr(right.T)
    inner = decomposed(left_rest @ right_rest.T)
    return Decomposition(left_basis @ inner.left, inner.values, inner.right @ right_basis.T)


def task_decomposition(tensor: TaskVectors, expert: int) -> Decomposition:
    """Decompose an expert's task vector, from its factors where they are known."""
    factors = tensor.read_factors[expert]()
    if factors is None or factors[0].shape[1] > min(tensor.shape):
        return decomposed(tensor.read[expert]())
    return decomposed_factors(factors)


def polar(columns: torch.Tensor) -> torch.Tensor:
    """Find the nearest matrix with orthonormal columns; with fewer of them if rank is missing.

    Args:
        columns: (rows, k).

    Returns:
        (rows, k): X (XᵀX)^(-1/2), inverted where XᵀX is not singular.
    """
    found = decomposed(columns)
    return found.left @ found.right


def joined(parts: Sequence[Decomposition]) -> list[torch.Tensor]:
    """Make the singular directions of several matrices orthogonal, then multiply each out again.

    Args:
        parts: Decompositions of matrices of one shape.

    Returns:
        One matrix for each: its own columns of the polar factors of all left and right directions
        beside one another, times its own singular values.
    """
    ranks = [len(part.values) for part in parts]
    left = polar(torch.cat([part.left for part in parts], dim=1)).split(ranks, dim=1)
    right = polar(torch.cat([part.right for part in parts]).T).split(ranks, dim=1)
    return [(u * part.values) @ v.T for u, part, v in zip(left, parts, right, strict=True)]


def summed(tensor: TaskVectors) -> torch.Tensor:
    """Add up the task vectors of all experts."""
    total = torch.zeros(tensor.shape)
    for read in tensor.read:
        total += read()
    return total


def _rounding(matrix: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Tell what singular values may come of rounding alone."""
    largest = values.max() if values.numel() else torch.zeros(())
    rounding: torch.Tensor = largest * max(matrix.shape) * torch.finfo(torch.float32).eps
    return rounding


def row_factor(tensor: TaskVectors, expert: int) -> torch.Tensor:
    """Return F with FᵀF = τᵀτ, (rank, columns), of few rows where the rank is known to be small."""
    factors = tensor.read_factors[expert]()
    if factors is None:
        return tensor.read[expert]()
    inner: torch.Tensor = torch.linalg.qr(factors[0]).R
    return inner @ factors[1]
