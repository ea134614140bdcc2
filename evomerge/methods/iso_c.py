"""Iso-C: the sum of task matrices with all its singular values made equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["IsoC"]


@dataclass(frozen=True, kw_only=True)
class IsoC(PreparedMethod):
    """Sum the task matrices, and give all directions of the sum the same strength: their mean.

    With coefficients of 1 this is the published merge. Others multiply what each expert contributes
    to it, with directions and strength of the sum held: not the same as summing with other
    coefficients first. What is no matrix is averaged.
    """

    name: ClassVar[str] = "iso_c"
    summary: ClassVar[str] = "sum of task vectors with a flat spectrum"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ σ̄ (ΔΔᵀ)^(−1/2) τᵢ,  Δ = Σ τⱼ = U Σ Vᵀ,  σ̄ = mean σ;  cᵢ = 1: σ̄ U Vᵀ"
    )
    source: ClassVar[str] = (
        "Marczak et al. 2025, No Task Left Behind: Isotropic Model Merging with Common and "
        "Task-Specific Subspaces, arXiv:2502.04959"
    )

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        from evomerge.methods.algebra import decomposed, summed

        left, values, _ = decomposed(summed(tensor))
        whitening = values.mean() / values
        return [(left * whitening) @ (left.T @ read()) for read in tensor.read]
