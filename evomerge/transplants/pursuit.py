"""Orthogonal matching pursuit: vectors as sparse combinations of others, chosen greedily.

Pati, Rezaiifar and Krishnaprasad 1993; for vocabularies: Goddard and Fernandes Neto 2025,
Training-Free Tokenizer Transplantation via Orthogonal Matching Pursuit, arXiv:2506.06607.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from evomerge.transplants.mix import BLOCK_BYTES, Mix

__all__ = ["pursued"]

_NOTHING_LEFT = 1e-6  # of the target's norm, in float32
_DEPENDENT = 1e-5  # of a vector's norm: what is not in the span of those before it


def pursued(
    targets: torch.Tensor, atoms: torch.Tensor, k: int, progress: Callable[[int], None]
) -> Mix:
    """Approximate vectors by up to k others each.

    Step by step the atom of the largest inner product with what is left of a target joins, and
    the target's projection onto all chosen atoms is taken off. A target that nothing is left of,
    or to which only an atom in the span of the chosen ones could be added, stops.

    Args:
        targets: (n, d), any floating dtype.
        atoms: (m, d), of the same device; at least k.
        k: How many to choose.
        progress: Called with the targets done since the last call.

    Returns:
        Of n targets, on the CPU; least-squares coefficients of the chosen atoms.
    """
    step = max(1, 4 * BLOCK_BYTES // (4 * k * max(k, targets.shape[1])))
    found = []
    for block in targets.split(step):
        found.append(_pursued(block.float(), atoms, k))
        progress(len(block))
    return Mix.joined(found)


def _pursued(targets: torch.Tensor, atoms: torch.Tensor, k: int) -> Mix:
    n, width = targets.shape
    basis, triangle = targets.new_zeros(n, k, width), targets.new_zeros(n, k, k)
    chosen = torch.zeros(n, k, dtype=torch.int64, device=targets.device)
    left, is_done = targets.clone(), torch.zeros(n, dtype=torch.bool, device=targets.device)
    least = _NOTHING_LEFT * targets.norm(dim=1)
    for i in range(k):
        chosen[:, i] = _largest_product(left, atoms)
        atom = atoms[chosen[:, i]].float()
        across, within = _split(atom, basis[:, :i])
        size = across.norm(dim=1)
        is_done |= (left.norm(dim=1) <= least) | (size <= _DEPENDENT * atom.norm(dim=1))
        # A target that is done gets basis vectors of 0, so that coefficients are 0, too.
        basis[:, i] = torch.where(is_done[:, None], 0, across / size[:, None])
        triangle[:, :i, i] = torch.where(is_done[:, None], 0, within)
        triangle[:, i, i] = torch.where(is_done, 1, size)
        left -= (basis[:, i] * left).sum(dim=1, keepdim=True) * basis[:, i]
    projected = basis @ targets[:, :, None]
    coefficients = torch.linalg.solve_triangular(triangle, projected, upper=True)[:, :, 0]
    return Mix(chosen.cpu(), coefficients.cpu())


def _largest_product(left: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """Find for each vector the atom whose inner product with it is largest, by amount."""
    width = max(len(left), atoms.shape[1])
    best = left.new_full((len(left),), -1)
    chosen = torch.zeros(len(left), dtype=torch.int64, device=left.device)
    start = 0
    for block in atoms.split(max(1, BLOCK_BYTES // (4 * width))):
        products, places = (left @ block.float().T).abs_().max(dim=1)
        is_larger = products > best
        best = torch.where(is_larger, products, best)
        chosen = torch.where(is_larger, places + start, chosen)
        start += len(block)
    return chosen


def _split(vectors: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Take vectors apart into what is orthogonal to a basis, and coefficients of the rest."""
    within = vectors.new_zeros(basis.shape[:2])
    for _ in range(2):  # once leaves the rounding of the first time, twice is enough
        part = (basis @ vectors[:, :, None])[:, :, 0]
        vectors = vectors - (part[:, None] @ basis)[:, 0]
        within = within + part
    return vectors, within
