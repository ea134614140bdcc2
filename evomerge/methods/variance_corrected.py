"""Variance-corrected averaging: give an average back the spread that averaging takes away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, shares

__all__ = ["VarianceCorrected"]


@dataclass(frozen=True, kw_only=True)
class VarianceCorrected(Method):
    """Average the experts, then stretch around the mean to their average variance.

    Useful for networks trained apart from one another; experts of one base lose little variance.
    """

    name: ClassVar[str] = "variance_corrected"
    summary: ClassVar[str] = "average of the experts, stretched to their own variance"
    formula: ClassVar[str] = (
        "θ = μ + s (x − μ),  x = Σ cᵢ θᵢ, μ = mean x, s = 1 + κ (√(Σ cᵢ var θᵢ / var x) − 1)"
    )
    source: ClassVar[str] = (
        "Tian et al. 2024, Vanishing Variance Problem in Fully Decentralized Neural-Network "
        "Systems, arXiv:2404.04616"
    )
    statistics: ClassVar[tuple[str, ...]] = ("model_gram", "model_moments")
    needs_base: ClassVar[bool] = False

    coefficient: PerExpert = coefficient("share of each expert, before normalising")
    kappa: float = shared(
        1.0,
        "strength of the correction, 0 for none",
        low=0.0,
        high=1.0,
        search=(0.0, 1.0),
        slope=True,
    )

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        portions = shares(self.coefficient)
        mean, stretch = _mean_and_stretch(tensor, portions)
        stretch = 1.0 + self.kappa * (stretch - 1.0)
        return TensorPlan(
            coefficients=portions,
            delta=False,
            base_coefficient=0.0,
            offset=(1.0 - stretch) * mean,
            scale=stretch,
        )


def _mean_and_stretch(tensor: TensorContext, portions: PerExpert) -> tuple[float, float]:
    """Mean of the average, and the factor that restores its standard deviation."""
    k, first = len(portions), int(tensor.has_base)
    moments = [tensor.statistics.model_moments(first + i) for i in range(k)]
    c, n = np.array(portions), moments[0].n
    mean = float(c @ [m.mean for m in moments])
    gram = tensor.statistics.model_gram[-k:, -k:]
    of_average = float(c @ gram @ c) / n - mean**2
    of_experts = float(c @ [m.variance for m in moments])
    constant = of_average <= 1e-12 * max(of_experts, mean**2)  # nothing but rounding
    return mean, 1.0 if constant else math.sqrt(max(of_experts, 0.0) / of_average)
