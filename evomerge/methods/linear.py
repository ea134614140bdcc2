"""Weighted average of whole models: model soups, checkpoint averages, EMA and friends."""

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

    Averages over the checkpoints of one training run are this operation too: their published names
    differ in which checkpoints take part and with which coefficients.
    """

    name: ClassVar[str] = "linear"
    summary: ClassVar[str] = "weighted average of the experts"
    formula: ClassVar[str] = "θ = Σ cᵢ θᵢ / Σ cᵢ"
    source: ClassVar[str] = "Wortsman et al. 2022, Model Soups, arXiv:2203.05482"
    covers: ClassVar[tuple[str, ...]] = (
        "Model Soups (uniform, greedy)",
        "Sparse Model Soups",
        "WARM",
        "Model Ratatouille",
        "MindVL averaging",
        "UnIVAL interpolation",
        "SALSA reference model",
        "Branch-Train-Merge average",
        "SWA",
        "SWALP",
        "LaWA",
        "EMA",
        "Free-Lunch checkpoint averaging",
        "LCSC",
        "MWA",
        "FedAvg",
        "FedAU",
        "MOS",
        "Layer Swapping",
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
