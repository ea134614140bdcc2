"""Arcee Fusion: take from one expert only changes of unusual importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.kernels.plan import RowBand, Table, TensorPlan
from evomerge.methods.base import Method, TensorContext, shared
from evomerge.methods.parameters import lambda_scale

__all__ = ["ArceeFusion"]


@dataclass(frozen=True, kw_only=True)
class ArceeFusion(Method):
    """Keep changes whose importance lies beyond the median by so many interquartile ranges.

    Importance is the change times the divergence of its row. A 1-D tensor is one row. Quartiles are
    elements of the ascending order, as in mergekit, which takes those of large tensors from a
    sample.
    """

    name: ClassVar[str] = "arcee_fusion"
    summary: ClassVar[str] = "take only changes of unusual importance"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ [s ≥ median(s) + fence·IQR(s)] τ₁,  "
        "s = |τ₁|·KL(softmax θ₁ row ‖ softmax θ₀ row)"
    )
    source: ClassVar[str] = "Arcee 2024, Arcee Fusion (mergekit documentation)"
    statistics: ClassVar[tuple[str, ...]] = (
        "row_divergence",
        "importance",
        "importance_quantiles",
    )
    n_experts: ClassVar[tuple[int, int | None]] = (1, 1)

    fence: float = shared(
        1.5,
        "interquartile ranges above the median from which a change counts",
        low=-100.0,
        high=1000.0,
        search=(-0.5, 3.0),
    )
    lambda_: float = lambda_scale()

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        divergence = tensor.statistics.row_divergence(0)
        low, median, high = tensor.statistics.importance_quantiles(0, (0.25, 0.5, 0.75))
        threshold = float(median + self.fence * (high - low))
        return TensorPlan(
            coefficients=(1.0,),
            sparse=(RowBand(*_band(divergence, threshold)),),
            scale=self.lambda_,
        )


def _band(divergence: FloatArray, threshold: float) -> tuple[Table, Table]:
    """Divide the threshold by each row's divergence; without any, a row reaches thresholds ≤ 0.

    A hair less, so that an element at the threshold does not fall to the rounding of the division.
    """
    none = np.inf if threshold > 0 else 0.0
    low = np.full(divergence.shape, none)
    np.divide(threshold, divergence, out=low, where=divergence > 0)
    low = (np.maximum(low, 0.0) * (1.0 - 1e-6)).astype(np.float32)
    return Table(low), Table(np.full_like(low, np.inf))
