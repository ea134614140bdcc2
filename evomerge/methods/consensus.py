"""Consensus merging: keep what several experts need, by their TALL masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import Consensus, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, per_expert, shared
from evomerge.methods.parameters import coefficient, density, lambda_scale, scope
from evomerge.methods.sparsify import band_statistics, upper_bands

__all__ = ["ConsensusMerging"]


@dataclass(frozen=True, kw_only=True)
class ConsensusMerging(Method):
    """Sum the task vectors where enough experts find their own change in the sum.

    An expert needs an element where its own change is large against that of all others together.
    Elements that only one expert needs (selfish) or none (catastrophic) keep the base's value.
    With ``density`` the task vectors are trimmed first, as for TIES.
    """

    name: ClassVar[str] = "consensus"
    summary: ClassVar[str] = "task arithmetic where enough experts agree (TALL masks)"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ g Σ xᵢ,  g = [#{i: |xᵢ| ≥ rᵢ |Σⱼ xⱼ − xᵢ|} ≥ k],  xᵢ = cᵢ τᵢ"
    )
    source: ClassVar[str] = (
        "Wang et al. 2024, Localizing Task Information for Improved Model Merging and "
        "Compression, arXiv:2405.07813"
    )
    covers: ClassVar[tuple[str, ...]] = ("TALL-masks (merged model)",)
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "model_magnitudes")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density(1.0)
    mask_ratio: PerExpert = per_expert(
        0.4,
        "an expert needs elements it changes by this many times the change of the others",
        low=0.0,
        high=100.0,
        search=(0.2, 0.6),
    )
    agreement: float = shared(
        2.0,
        "number of experts that must need an element (1.5 counts as 2)",
        low=0.0,
        high=1000.0,
        search=(0.5, 3.0),
    )
    lambda_: float = lambda_scale()
    scope: str = scope("tensor", "global")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: those of the scope."""
        return band_statistics(self.scope)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(
            coefficients=self.coefficient,
            sparse=upper_bands(tensor, self.density, self.scope),
            gate=Consensus(ratios=self.mask_ratio, at_least=math.ceil(self.agreement)),
            scale=self.lambda_,
        )
