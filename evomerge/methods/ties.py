"""TIES: trim small changes, elect a sign per parameter, average those that agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import (
    coefficient,
    density,
    election,
    lambda_scale,
    normalize,
    scaled,
    scope,
    trim_rescale,
    vote,
    zero_sign,
)
from evomerge.methods.sparsify import band_statistics, trim_factors, upper_bands

__all__ = ["Ties"]


@dataclass(frozen=True, kw_only=True)
class Ties(Method):
    """Trim to the largest changes, elect signs, average what agrees.

    Defaults are mergekit's: the share is of each tensor, coefficients take part in the election,
    and a vote of zero elects the positive sign. The original counts over the whole model
    (``scope: global``), votes without coefficients (``vote: unweighted``) and gives undecided
    elements the majority sign of the model, which is not offered: it matters only where changes
    cancel exactly. All elements equal to the threshold are kept; sorting implementations cut
    inside such ties.
    """

    name: ClassVar[str] = "ties"
    summary: ClassVar[str] = "trim, elect a sign per parameter, average what agrees"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / Σ cᵢ mᵢ,  mᵢ = [|τᵢ| ≥ tᵢ(density) and sign(cᵢτᵢ) elected]"
    )
    source: ClassVar[str] = "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "model_magnitudes")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(True, "the coefficients that survive")
    rescale: str = trim_rescale()
    scope: str = scope("tensor", "global")
    vote: str = vote()
    zero_sign: str = zero_sign()

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: those of the scope."""
        return band_statistics(self.scope, self.rescale)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        kept = upper_bands(tensor, self.density, self.scope)
        return TensorPlan(
            coefficients=scaled(self.coefficient, trim_factors(tensor, kept, self.rescale)),
            sparse=kept,
            combine=election(self.vote, self.zero_sign),
            normalize_by_mask=self.normalize,
            mixing=self.coefficient,
            scale=self.lambda_,
        )
