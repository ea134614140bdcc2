"""Fisher merging: each parameter averaged by how much each expert's predictions depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import shared
from evomerge.methods.observed import Observed, ObservedMethod
from evomerge.methods.prepared import TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Fisher"]


@dataclass(frozen=True, kw_only=True)
class Fisher(ObservedMethod):
    """Weigh every element of every expert by the diagonal of its Fisher information.

    Elements that no expert depends on, by far less than ``floor``, are averaged.
    """

    name: ClassVar[str] = "fisher"
    summary: ClassVar[str] = "average weighed by Fisher information"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ aᵢ(Fᵢ+ε)^κ τᵢ / Σ aⱼ(Fⱼ+ε)^κ;  c, λ = 1: Σ aᵢFᵢθᵢ / Σ aⱼFⱼ"
    )
    source: ClassVar[str] = (
        "Matena & Raffel 2022, Merging Models with Fisher-Weighted Averaging, arXiv:2111.09832"
    )
    observations: ClassVar[tuple[str, ...]] = ("fisher",)

    floor: float = shared(1e-6, "added to every diagonal element", low=0.0, high=1.0, prepares=True)
    exponent: float = shared(
        1.0, "power of the diagonal; 0 is the mean", low=0.0, high=4.0, prepares=True
    )

    def of_observed(self, tensor: TaskVectors, observed: Observed) -> Sequence[torch.Tensor]:
        """See ``ObservedMethod.of_observed``."""
        import torch

        own = [
            influence * (diagonal.double() + self.floor) ** self.exponent
            for influence, diagonal in zip(self.influence, observed["fisher"], strict=True)
        ]
        total = torch.stack(own).sum(0)
        means = self.otherwise(tensor)  # where nothing depends on an element
        return [
            torch.where(total > 0, one * read().double() / total, mean.double()).float()
            for one, read, mean in zip(own, tensor.read, means, strict=True)
        ]
