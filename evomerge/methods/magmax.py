"""MagMax: of each parameter, take the largest change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import Largest, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, lambda_scale

__all__ = ["MagMax"]


@dataclass(frozen=True, kw_only=True)
class MagMax(Method):
    """Take the change of largest magnitude, coefficients included; of equals the last expert's.

    The paper scales the result (``lambda``) by 0.5.
    """

    name: ClassVar[str] = "magmax"
    summary: ClassVar[str] = "the largest change of each parameter"
    formula: ClassVar[str] = "θ = θ₀ + λ x_k,  k = argmaxᵢ |xᵢ|,  xᵢ = cᵢ τᵢ"
    source: ClassVar[str] = (
        "Marczak et al. 2024, MagMax: Leveraging Model Merging for Seamless Continual Learning, "
        "arXiv:2407.06322"
    )

    coefficient: PerExpert = coefficient()
    lambda_: float = lambda_scale()

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(coefficients=self.coefficient, combine=Largest(), scale=self.lambda_)
