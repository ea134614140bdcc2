"""What of an expert is not in the merge: a difference for each tensor, of low rank where it can be.

Source: Lu et al. 2024, Twin-Merging, arXiv:2406.15479.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from evomerge.methods.algebra import decomposed
from evomerge.models.checkpoint import open_safetensors
from evomerge.models.writer import TensorForm

__all__ = ["Differences", "difference_forms", "factors", "kept_rank", "with_differences"]

_LEFT, _RIGHT = " left", " right"


def kept_rank(shape: Sequence[int], rank_share: float) -> int | None:
    """Tell how many singular directions of a difference are kept.

    Args:
        shape: Of the tensor.
        rank_share: Of a matrix's full rank; at least one direction is kept.

    Returns:
        ``None`` where the difference is kept whole: of what is no matrix, and where factors would
        take no less.
    """
    if len(shape) != 2 or not min(shape):
        return None
    rank = max(1, int(rank_share * min(shape)))
    return rank if rank * sum(shape) < math.prod(shape) else None


def difference_forms(name: str, form: TensorForm, rank_share: float) -> dict[str, TensorForm]:
    """List what a file holds of the difference of one tensor, in the tensor's dtype."""
    if (rank := kept_rank(form.shape, rank_share)) is None:
        return {name: form}
    rows, columns = form.shape
    return {
        name + _LEFT: TensorForm(form.dtype, (rows, rank)),
        name + _RIGHT: TensorForm(form.dtype, (rank, columns)),
    }


def factors(
    name: str, merge: torch.Tensor, expert: torch.Tensor, rank_share: float
) -> dict[str, torch.Tensor]:
    """Compute the difference of one tensor as ``difference_forms`` says.

    The factors are those of the truncated singular value decomposition, each with the square roots
    of the singular values; computed in float32. Directions that a difference has not are zeros.

    Args:
        name: Of the tensor.
        merge: Any floating dtype.
        expert: Of the same shape.
        rank_share: See ``kept_rank``.
    """
    difference = expert.float() - merge.float()
    if (rank := kept_rank(merge.shape, rank_share)) is None:
        return {name: difference.to(merge.dtype)}
    top = decomposed(difference).top(rank)
    roots, n = top.values.sqrt(), len(top.values)
    left, right = difference.new_zeros(len(merge), rank), difference.new_zeros(rank, merge.shape[1])
    left[:, :n], right[:n] = top.left * roots, roots[:, None] * top.right
    return {name + _LEFT: left.to(merge.dtype), name + _RIGHT: right.to(merge.dtype)}


class Differences:
    """The differences of one expert, as a file holds them.

    Args:
        file: Of safetensors.
    """

    def __init__(self, file: Path) -> None:
        self._tensors = open_safetensors(file)
        self._names = frozenset(self._tensors.keys())

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a difference of a tensor."""
        return name in self._names or name + _LEFT in self._names

    @property
    def n_elements(self) -> int:
        """How many numbers the file holds."""
        return sum(math.prod(self._tensors.get_slice(n).get_shape()) for n in self._names)

    def tensor(self, name: str) -> torch.Tensor:
        """Multiply out the difference of a tensor: float32, of its shape."""
        if name in self._names:
            return self._part(name)
        return self._part(name + _LEFT) @ self._part(name + _RIGHT)

    def _part(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self._tensors.get_tensor(name)
        return found.float()


def with_differences(
    name: str,
    merge: torch.Tensor,
    differences: Mapping[str, Differences],
    weights: Mapping[str, float],
) -> torch.Tensor:
    """Add to a tensor of the merge what it differs by: merge + Σ weight · difference.

    Args:
        name: Of the tensor.
        merge: Any floating dtype, that of the result; computed in float32.
        differences: By expert.
        weights: By expert; those that are not named have 0.
    """
    used = {expert: weight for expert, weight in weights.items() if weight}
    if not used or any(name not in differences[expert] for expert in used):
        return merge
    total = merge.float()
    for expert, weight in used.items():
        total = total + weight * differences[expert].tensor(name)
    return total.to(merge.dtype)
