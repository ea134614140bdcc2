"""LoRA-LEGO: adapters taken apart into rank-one units, clustered, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["LoraLego"]


@dataclass(frozen=True, kw_only=True)
class LoraLego(PreparedMethod):
    """Cluster the rank-one units of all adapters; the centres are those of one merged adapter.

    A unit is a row of A with its column of B. A centre gets the mean length of its units, and the
    whole is scaled by √(mean rank / clusters). Centres start from units far from one another, so
    that clusters depend on no chance. An expert's coefficient multiplies its share of the units of
    each cluster. Experts that are no adapters are cut to ``rank``. What is no matrix is averaged.
    """

    name: ClassVar[str] = "lora_lego"
    summary: ClassVar[str] = "rank-one units of adapters, clustered"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ √(r/k) Σ_c (nᵢ_c/n_c) b_c a_cᵀ,  [a_c; b_c] mean of cluster c of k, with "
        "the mean length of its units"
    )
    source: ClassVar[str] = (
        "Zhao et al. 2024, Merging LoRAs like Playing LEGO: Pushing the Modularity of LoRA to "
        "Extremes Through Rank-Wise Clustering, arXiv:2409.16167"
    )

    clusters: float = shared(
        0, "rank of the merged adapter; 0: the mean rank", low=0, high=100_000, prepares=True
    )
    rank: float = shared(
        16, "rank of an expert that is no adapter", low=1, high=100_000, prepares=True
    )

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        import torch

        from evomerge.methods.factors import clustered, factor_pair

        pairs = [factor_pair(tensor, i, int(self.rank)) for i in range(tensor.n)]
        units = torch.cat([torch.cat([a, b.T], dim=1) for b, a in pairs])
        owner = torch.cat([torch.full((len(a),), i) for i, (_, a) in enumerate(pairs)])
        if not len(units):
            return [torch.zeros(tensor.shape) for _ in pairs]
        mean_rank = len(units) / tensor.n
        k = min(int(self.clusters) or max(1, round(mean_rank)), len(units))
        member = clustered(units, k)
        centres = _centres(units, member)
        a, b = centres[:, : tensor.shape[1]], centres[:, tensor.shape[1] :]
        scale = (mean_rank / k) ** 0.5
        shares = [((owner == i).float() @ member) / member.sum(dim=0) for i in range(tensor.n)]
        return [scale * (b.T * share) @ a for share in shares]


def _centres(units: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Average the units of each cluster: their mean direction and their mean length."""
    import torch

    count = member.sum(dim=0)
    mean = member.T @ units / count[:, None]
    length, wanted = mean.norm(dim=1), member.T @ units.norm(dim=1) / count
    ratio = torch.where(length > 1e-6 * wanted, wanted / length.clamp(min=1e-38), 0.0)
    return mean * ratio[:, None]
