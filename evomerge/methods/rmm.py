"""RMM: adapters rebuilt from a mean and few principal components of their factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Rmm"]


@dataclass(frozen=True, kw_only=True)
class Rmm(PreparedMethod):
    """Compress the experts' low-rank factors together, rebuild each expert, and add these up.

    At each row of the left factors, and each column of the right ones, the experts are points in as
    many dimensions as the rank; of these points the mean and ``components`` principal components
    are kept. With a coefficient of 1 for one expert and 0 for others, that expert is restored.
    Experts that are no adapters are cut to ``rank``. What is no matrix is averaged.
    """

    name: ClassVar[str] = "rmm"
    summary: ClassVar[str] = "sum of adapters rebuilt from few components in common"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ B̂ᵢ Âᵢ,  B̂ᵢ, Âᵢ from mean and top principal components of Bⱼ, Aⱼ over j"
    )
    source: ClassVar[str] = (
        "Alipour and Amiri 2025, Towards Reversible Model Merging For Low-rank Weights, "
        "arXiv:2510.14163"
    )

    components: float = shared(
        1, "principal components that are kept", low=0, high=1000, prepares=True
    )
    rank: float = shared(
        16, "rank of an expert that is no adapter", low=1, high=100_000, prepares=True
    )

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        from evomerge.methods.factors import factor_pair, padded

        pairs = [factor_pair(tensor, i, int(self.rank)) for i in range(tensor.n)]
        left = _rebuilt(padded([pair[0] for pair in pairs]), int(self.components))
        right = _rebuilt(padded([pair[1].T for pair in pairs]), int(self.components))
        return [b @ a.T for b, a in zip(left, right, strict=True)]


def _rebuilt(points: torch.Tensor, components: int) -> torch.Tensor:
    """Keep the mean and the top principal components of the experts' points at each position.

    Args:
        points: (experts, positions, rank).
        components: How many are kept.
    """
    import torch

    mean = points.mean(dim=0, keepdim=True)
    left, values, right = torch.linalg.svd((points - mean).transpose(0, 1), full_matrices=False)
    values[:, components:] = 0
    rebuilt: torch.Tensor = mean + ((left * values[:, None, :]) @ right).transpose(0, 1)
    return rebuilt
