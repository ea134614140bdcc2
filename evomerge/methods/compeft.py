"""ComPEFT: task vectors of three values, the largest changes with one size for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import PerExpert, per_expert
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Compeft"]


@dataclass(frozen=True, kw_only=True)
class Compeft(PreparedMethod):
    """Keep the signs of the largest changes, times their standard deviation, then add up.

    The coefficient is the paper's α. Shares and deviations are of each tensor; the paper's are of
    the whole task vector. There is no algebra in it: any tensor is treated alike.
    """

    name: ClassVar[str] = "compeft"
    summary: ClassVar[str] = "sum of the signs of large changes"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ std(τᵢ) mᵢ∘sign(τᵢ),  mᵢ the largest |τᵢ|"
    source: ClassVar[str] = (
        "Yadav et al. 2023, ComPEFT: Compression for Communicating Parameter Efficient Updates via "
        "Sparsification and Quantization, arXiv:2311.13171"
    )

    density: PerExpert = per_expert(
        0.2, "share of each task vector that is kept", low=0.0, high=1.0, prepares=True
    )

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        from evomerge.methods.trimming import largest

        taus = tensor.all()
        pairs = zip(taus, self.density, strict=True)
        return [
            tau.sign() * largest(tau, density) * (tau.std(correction=0) if tau.numel() else 0)
            for tau, density in pairs
        ]

    def otherwise(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.otherwise``."""
        return self.of_matrix(tensor)
