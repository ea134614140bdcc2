"""Vectors as means of their nearest neighbours, weighted by nearness."""

from __future__ import annotations

from collections.abc import Callable

import torch

from evomerge.transplants.mix import BLOCK_BYTES, Mix

__all__ = ["interpolated"]


def interpolated(
    targets: torch.Tensor, atoms: torch.Tensor, k: int, progress: Callable[[int], None]
) -> Mix:
    """Approximate vectors by their k nearest others.

    A neighbour counts by one over its distance; all add up to 1. Where the vector itself is among
    them, nothing else counts.

    Args:
        targets: (n, d), any floating dtype.
        atoms: (m, d), of the same device; at least k.
        k: How many neighbours.
        progress: Called with the targets done since the last call.

    Returns:
        Of n targets, on the CPU.
    """
    step = max(1, BLOCK_BYTES // (4 * k * targets.shape[1]))
    found = []
    for block in targets.split(step):
        found.append(_interpolated(block.float(), atoms, k))
        progress(len(block))
    return Mix.joined(found)


def _interpolated(targets: torch.Tensor, atoms: torch.Tensor, k: int) -> Mix:
    chosen = _nearest(targets, atoms, k)
    distances = (atoms[chosen].float() - targets[:, None]).norm(dim=2)
    is_same = distances == 0
    nearness = torch.where(is_same.any(dim=1, keepdim=True), is_same.float(), 1 / distances)
    return Mix(chosen.cpu(), (nearness / nearness.sum(dim=1, keepdim=True)).cpu())


def _nearest(targets: torch.Tensor, atoms: torch.Tensor, k: int) -> torch.Tensor:
    """Find the k nearest, block by block of atoms."""
    width = max(len(targets), atoms.shape[1])
    best = targets.new_empty(len(targets), 0)
    chosen = torch.empty(len(targets), 0, dtype=torch.int64, device=targets.device)
    start = 0
    for block in atoms.split(max(1, BLOCK_BYTES // (4 * width))):
        near = torch.cat([best, torch.cdist(targets, block.float())], dim=1)
        places = torch.arange(start, start + len(block), device=targets.device)
        known = torch.cat([chosen, places.expand(len(targets), -1)], dim=1)
        best, order = near.topk(min(k, near.shape[1]), dim=1, largest=False)
        chosen = known.gather(1, order)
        start += len(block)
    return chosen
