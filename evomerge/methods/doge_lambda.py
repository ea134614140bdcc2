"""DOGE's coefficients: every task vector scaled to the same length, tensor by tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient

__all__ = ["DogeLambda"]


@dataclass(frozen=True, kw_only=True)
class DogeLambda(Method):
    """Divide each task vector by its norm in this tensor, so that no expert drowns the others.

    This is the training-free coefficient rule of DOGE; its optimised offset is not part of it.
    """

    name: ClassVar[str] = "doge_lambda"
    summary: ClassVar[str] = "task arithmetic with task vectors of equal norm"
    formula: ClassVar[str] = "θ = θ₀ + Σ cᵢ (η/‖τᵢ‖) τᵢ"
    source: ClassVar[str] = (
        "Wei et al. 2025, Modeling Multi-Task Model Merging as Adaptive Projective Gradient "
        "Descent (DOGE), arXiv:2501.01230"
    )
    statistics: ClassVar[tuple[str, ...]] = ("task_gram",)

    coefficient: PerExpert = coefficient()
    eta: float = shared(
        0.07,
        "norm that each task vector gets, per tensor",
        low=-1e3,
        high=1e3,
        search=(0.01, 1.0),
        slope=True,
    )

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        norms = [math.sqrt(square) for square in tensor.statistics.task_gram.diagonal()]
        return TensorPlan(
            coefficients=tuple(
                c * self.eta / norm if norm > 0 else 0.0
                for c, norm in zip(self.coefficient, norms, strict=True)
            )
        )
