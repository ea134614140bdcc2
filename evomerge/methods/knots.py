"""KnOTS: experts brought into one basis, where they are merged element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.methods.base import PerExpert, choice, per_expert
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Knots"]


@dataclass(frozen=True, kw_only=True)
class Knots(PreparedMethod):
    """Write task matrices in the left singular vectors of all of them, and merge there by TIES.

    Coefficients multiply what is elected: they take part in no election. ``merge: sum`` adds up,
    which is task arithmetic. Adapters are decomposed by their factors. Trims are of each tensor.
    What is no matrix is merged by the same rule as it is.
    """

    name: ClassVar[str] = "knots"
    summary: ClassVar[str] = "TIES in the singular basis that experts share"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ U (mᵢ∘Zᵢ / Σ mⱼ),  [τ₁ … τₙ] = U Σ [V₁ … Vₙ],  Zᵢ = Σ Vᵢ = Uᵀτᵢ,  "
        "mᵢ largest of Zᵢ with the sign of their sum"
    )
    source: ClassVar[str] = (
        "Stoica et al. 2024, Model Merging with SVD to Tie the KnOTS, arXiv:2410.19735"
    )

    density: PerExpert = per_expert(
        1.0, "share of each expert's coordinates that is kept", low=0.0, high=1.0, prepares=True
    )
    merge: str = choice(("ties", "sum"), "how coordinates are merged", prepares=True)

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``."""
        import torch

        from evomerge.methods.algebra import decomposed, task_decomposition

        found = (task_decomposition(tensor, i) for i in range(tensor.n))
        basis = decomposed(torch.cat([part.left * part.values for part in found], dim=1)).left
        return [basis @ each for each in self._merged([basis.T @ read() for read in tensor.read])]

    def otherwise(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.otherwise``."""
        return self._merged(tensor.all())

    def _merged(self, coordinates: list[torch.Tensor]) -> list[torch.Tensor]:
        """Turn coordinates into what each expert adds to their merge."""
        if self.merge == "sum":
            return coordinates
        from evomerge.methods.trimming import largest, same_sign

        pairs = zip(coordinates, self.density, strict=True)
        kept = [each * largest(each, density) for each, density in pairs]
        agreeing = same_sign(kept)
        count = sum((mask.float() for mask in agreeing[1:]), agreeing[0].float()).clamp(min=1)
        return [each * mask / count for each, mask in zip(kept, agreeing, strict=True)]
