"""Multi-SLERP: a spherical mean of any number of task vectors, in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale, normalize, shares

__all__ = ["MultiSlerp"]


_CANCELLED = 1e-8  # norm of a mean of unit vectors that point everywhere


@dataclass(frozen=True, kw_only=True)
class MultiSlerp(Method):
    """Average directions on the sphere, and lengths apart from them.

    With a base these are those of the task vectors, without one of the models. The published form
    projects to the tangent space at the mean direction and back, which changes nothing when both
    use the same coefficients, as they do; what ``eps`` adds to the length of the way is left.
    """

    name: ClassVar[str] = "multislerp"
    summary: ClassVar[str] = "mean direction times mean length of the task vectors (or models)"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ cos(eps) (Σ cᵢ‖τᵢ‖) u/‖u‖,  u = Σ cᵢ τᵢ/(‖τᵢ‖+eps),  coefficients sum to 1"
    )
    source: ClassVar[str] = "Goddard et al. 2024, Arcee's MergeKit, arXiv:2403.13257 (multislerp)"
    statistics: ClassVar[tuple[str, ...]] = ("task_gram",)
    needs_base: ClassVar[bool] = False

    coefficient: PerExpert = coefficient("share of each expert, before normalising")
    normalize: bool = normalize(True, "all coefficients")
    eps: float = shared(1e-8, "added to each length that is divided by", low=0.0, high=1.0)
    lambda_: float = lambda_scale()

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        portions = shares(self.coefficient) if self.normalize else self.coefficient
        factors = _factors(np.array(portions), tensor.statistics.task_gram, self.eps)
        return TensorPlan(
            coefficients=tuple(map(float, factors)),
            delta=tensor.has_base,
            base_coefficient=1.0 if tensor.has_base else 0.0,
            scale=self.lambda_,
        )


def _factors(portions: FloatArray, gram: FloatArray, eps: float) -> FloatArray:
    """Factors of the task vectors; plain portions where their directions cancel."""
    norms = np.sqrt(gram.diagonal())
    direction = np.divide(portions, norms + eps, out=np.zeros_like(norms), where=norms > 0)
    length = math.sqrt(max(float(direction @ gram @ direction), 0.0))
    if length < _CANCELLED:
        return portions
    factors: FloatArray = math.cos(eps) * (portions @ norms) / length * direction
    return factors
