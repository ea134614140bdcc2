"""TSV-M: the largest singular directions of all experts, made orthogonal to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["TsvM"]


@dataclass(frozen=True, kw_only=True)
class TsvM(PreparedMethod):
    """Keep the same share of each task matrix's singular directions, and let no two interfere.

    All directions together are replaced by the nearest orthonormal ones. Those of an expert do not
    depend on coefficients, so that any coefficients give exactly the merge with its singular values
    multiplied by them. What is no matrix is averaged. An expert that did not change a matrix has
    no direction in it.
    """

    name: ClassVar[str] = "tsv_m"
    summary: ClassVar[str] = "sum of top singular directions, made orthogonal across experts"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ U⊥ᵢ Σᵢ V⊥ᵢᵀ,  τᵢ ≈ Uᵢ Σᵢ Vᵢᵀ of rank r/n,  U⊥ polar factor of [U₁ … Uₙ]"
    )
    source: ClassVar[str] = (
        "Gargiulo et al. 2025, Task Singular Vectors: Reducing Task Interference in Model Merging, "
        "arXiv:2412.00081"
    )

    rank_share: float = shared(
        1.0,
        "share of a matrix's rank that the experts have together, each the same",
        low=0.0,
        high=1.0,
        prepares=True,
    )

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        from evomerge.methods.algebra import joined, task_decomposition

        rank = max(1, int(min(tensor.shape) * self.rank_share / tensor.n))
        return joined([task_decomposition(tensor, i).top(rank) for i in range(tensor.n)])
