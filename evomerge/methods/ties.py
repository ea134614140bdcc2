"""TIES: trim small changes, elect a sign per parameter, average those that agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import Band, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, density, lambda_scale, normalize

__all__ = ["Ties"]


@dataclass(frozen=True, kw_only=True)
class Ties(Method):
    """Trim per tensor at the magnitude that ``density`` of the elements reach.

    Coefficients take part in the election, as in mergekit; the original votes unweighted. All
    elements equal to the threshold are kept; sorting implementations cut inside such ties.
    """

    name: ClassVar[str] = "ties"
    summary: ClassVar[str] = "trim, elect a sign per parameter, average what agrees"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / Σ cᵢ mᵢ,  mᵢ = [|τᵢ| ≥ tᵢ(density) and sign(cᵢτᵢ) elected]"
    )
    source: ClassVar[str] = "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(True, "the coefficients that survive")

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        bands = tuple(
            None if share >= 1.0 else Band(tensor.statistics.magnitudes(i).threshold(share))
            for i, share in enumerate(self.density)
        )
        return TensorPlan(
            coefficients=self.coefficient,
            sparse=bands,
            elect="sum",
            normalize_by_mask=self.normalize,
            scale=self.lambda_,
        )
