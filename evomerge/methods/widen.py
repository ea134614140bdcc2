"""WIDEN: weigh experts column by column, by how much length and direction changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evomerge.kernels.plan import Table, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale

__all__ = ["Widen"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Widen(Method):
    """Score columns by rank of change, share them out between experts, keep the important ones.

    Change of length and change of direction are scored apart and averaged. A column that ranks
    above the average of its expert (``above`` times) gets a fixed score instead of its share, so
    that merging many experts does not dilute it. Columns of a 1-D tensor are its elements.
    """

    name: ClassVar[str] = "widen"
    summary: ClassVar[str] = "weigh experts by change of length and direction, per column"
    formula: ClassVar[str] = (
        "θ = θ₀ + λ Σ cᵢ ½(sᵢ(Δ length) + sᵢ(Δ direction)) τᵢ per column,  s = softmax over "
        "experts of rank/columns, or calibration where the rank is above average"
    )
    source: ClassVar[str] = (
        "Yu et al. 2024, Extend Model Merging from Fine-Tuned to Pre-Trained Large Language "
        "Models via Weight Disentanglement, arXiv:2408.03092"
    )
    statistics: ClassVar[tuple[str, ...]] = ("column_scores",)

    coefficient: PerExpert = coefficient()
    above: float = shared(
        1.0,
        "how many times the average rank makes a column important",
        low=0.0,
        high=10.0,
        search=(0.5, 2.0),
    )
    calibration: float = shared(
        1.0, "score of important columns", low=0.0, high=10.0, search=(0.3, 1.5), slope=True
    )
    lambda_: float = lambda_scale()

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        lengths, directions = tensor.statistics.column_scores()
        scores = (self._scores(lengths) + self._scores(directions)) / 2
        return TensorPlan(
            coefficients=self.coefficient,
            column_scale=tuple(Table(row) for row in scores),
            scale=self.lambda_,
        )

    def _scores(self, changes: FloatArray) -> FloatArray:
        """Turn (k, columns) changes into scores of the same shape."""
        ranks = _ranks(changes)
        portions = np.exp(ranks)
        portions /= portions.sum(axis=0)
        important = ranks > self.above * ranks.mean(axis=1, keepdims=True)
        return np.where(important, self.calibration, portions)


def _ranks(values: FloatArray) -> FloatArray:
    """Rank along rows from 0 to 1 (excluded); equal values share their mean rank."""
    ordered = np.sort(values, axis=1)
    below = [np.searchsorted(o, v, "left") for o, v in zip(ordered, values, strict=True)]
    up_to = [np.searchsorted(o, v, "right") for o, v in zip(ordered, values, strict=True)]
    ranks: FloatArray = (np.array(below) + np.array(up_to) - 1) / (2 * values.shape[1])
    return ranks
