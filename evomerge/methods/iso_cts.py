"""Iso-CTS: Iso-C in the directions that the experts share, beside directions of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["IsoCts"]


@dataclass(frozen=True, kw_only=True)
class IsoCts(PreparedMethod):
    """Keep the top directions of the sum and the top ones of what each expert has outside of them.

    All together are made orthogonal and equally strong. An expert's coefficient multiplies its own
    directions and its part, one of n, of those in common. What is no matrix is averaged.
    """

    name: ClassVar[str] = "iso_cts"
    summary: ClassVar[str] = "common and task-specific directions with a flat spectrum"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ σ̄ (U⊥ᵢ V⊥ᵢᵀ + U⊥₀ V⊥₀ᵀ/n),  U₀ top of Σ τⱼ,  Uᵢ top of (I − U₀U₀ᵀ) τᵢ"
    )
    source: ClassVar[str] = (
        "Marczak et al. 2025, No Task Left Behind: Isotropic Model Merging with Common and "
        "Task-Specific Subspaces, arXiv:2502.04959"
    )

    common: float = shared(
        0.8,
        "share of a matrix's rank for common directions; the experts share the rest",
        low=0.0,
        high=1.0,
        prepares=True,
    )

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        import torch

        from evomerge.methods.algebra import decomposed, joined, summed

        n_common, n_own = self._ranks(min(tensor.shape), tensor.n)
        together = decomposed(summed(tensor)).top(n_common)
        own = [decomposed(_outside(read(), together.left)).top(n_own) for read in tensor.read]
        parts = [together, *own]
        values = torch.cat([part.values for part in parts])
        if not len(values):
            return [torch.zeros(tensor.shape) for _ in own]
        flat = [
            part._replace(values=torch.full_like(part.values, float(values.mean())))
            for part in parts
        ]
        common, *specific = joined(flat)
        return [each + common / tensor.n for each in specific]

    def _ranks(self, rank: int, n: int) -> tuple[int, int]:
        """Share the rank of a matrix: common directions, and those of each expert."""
        each = round((rank - int(rank * self.common)) / n)
        return max(0, rank - n * each), each


def _outside(matrix: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    return matrix - basis @ (basis.T @ matrix)
