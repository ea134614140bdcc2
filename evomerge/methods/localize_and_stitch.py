"""Localize-and-Stitch without data: the few largest changes of each expert, stitched together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, density, lambda_scale, scope
from evomerge.methods.sparsify import band_statistics, upper_bands

__all__ = ["LocalizeAndStitch"]


@dataclass(frozen=True, kw_only=True)
class LocalizeAndStitch(Method):
    """Keep the largest changes of the whole model; where regions overlap, average.

    The paper's other form learns its regions from data.
    """

    name: ClassVar[str] = "localize_and_stitch"
    summary: ClassVar[str] = "few largest changes of each expert, averaged where they overlap"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / max(Σ mᵢ, 1),  mᵢ = [|τᵢ| ≥ tᵢ(density)]"
    source: ClassVar[str] = "He et al. 2024, Localize-and-Stitch, arXiv:2408.13656"
    covers: ClassVar[tuple[str, ...]] = ("Localize-and-Stitch (dataless)",)
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "model_magnitudes")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density(0.05)
    lambda_: float = lambda_scale()
    scope: str = scope("global", "tensor")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: those of the scope."""
        return band_statistics(self.scope)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(
            coefficients=self.coefficient,
            sparse=upper_bands(tensor, self.density, self.scope),
            normalize_by_mask=True,
            mixing=(1.0,) * len(tensor.experts),
            scale=self.lambda_,
        )
