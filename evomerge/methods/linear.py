"""Weighted average of whole models: model soups and checkpoint averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, divisor, normalize

__all__ = ["Linear"]


@dataclass(frozen=True, kw_only=True)
class Linear(Method):
    """Average the experts' tensors; the base takes no part unless it is listed as an expert.

    Uniform averages over the checkpoints of one training run are this operation too: their
    published names differ in which checkpoints take part. Methods whose rule is how to find the
    coefficients (moving averages, searches, weights by loss or by participation) are not.
    """

    name: ClassVar[str] = "linear"
    summary: ClassVar[str] = "weighted average of the experts"
    formula: ClassVar[str] = "θ = Σ cᵢ θᵢ / Σ cᵢ"
    source: ClassVar[str] = "Wortsman et al. 2022, Model Soups, arXiv:2203.05482"
    covers: ClassVar[tuple[str, ...]] = (
        "Model Soups (uniform)",
        "WARM",
        "Model Ratatouille",
        "MindVL averaging",
        "UnIVAL interpolation",
        "SALSA reference model",
        "Branch-Train-Merge average",
        "SWA",
        "LaWA",
        "Free-Lunch checkpoint averaging",
        "FedAvg (server step)",
    )
    needs_base: ClassVar[bool] = False

    coefficient: PerExpert = coefficient()
    normalize: bool = normalize(True, "all coefficients")

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        scale = 1.0 / divisor(self.coefficient, normalize=self.normalize)
        return TensorPlan(
            coefficients=self.coefficient, delta=False, base_coefficient=0.0, scale=scale
        )
