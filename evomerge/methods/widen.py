"""WIDEN: weigh experts column by column, by how much length and direction changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.kernels.plan import Table, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, lambda_scale

__all__ = ["Widen"]


@dataclass(frozen=True, kw_only=True)
class Widen(Method):
    """Score columns by rank of change, share them out between experts, keep the important ones.

    Change of length and change of direction are scored apart and averaged. A column that ranks
    above the average of its expert (``above`` times) gets a fixed score instead of its share, so
    that merging many experts does not dilute it. What is a column of other matrices is a row of an
    embedding: a token. Elements of a 1-D tensor are scored by the size of their change, not by its
    rank. Equal changes share their mean rank; the authors' code ranks them in order.
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
    statistics: ClassVar[tuple[str, ...]] = ("column_scores", "row_scores")

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
        statistics = tensor.statistics
        is_vector = len(statistics.shape) < 2
        by_row = tensor.is_embedding and not is_vector
        changes = statistics.row_scores() if by_row else statistics.column_scores()
        significance = changes if is_vector else np.stack([_ranks(change) for change in changes])
        scores = np.mean([self._scores(each) for each in significance], axis=0)
        tables = tuple(Table(row) for row in scores)
        return TensorPlan(
            coefficients=self.coefficient,
            row_scale=tables if by_row else None,
            column_scale=None if by_row else tables,
            scale=self.lambda_,
        )

    def _scores(self, significance: FloatArray) -> FloatArray:
        """Turn the significance of (k, columns) changes into scores of the same shape."""
        portions = np.exp(significance - significance.max(axis=0))
        portions /= portions.sum(axis=0)
        important = significance > self.above * significance.mean(axis=1, keepdims=True)
        return np.where(important, self.calibration, portions)


def _ranks(values: FloatArray) -> FloatArray:
    """Rank along rows from 0 to 1 (excluded); equal values share their mean rank."""
    ordered = np.sort(values, axis=1)
    below = [np.searchsorted(o, v, "left") for o, v in zip(ordered, values, strict=True)]
    up_to = [np.searchsorted(o, v, "right") for o, v in zip(ordered, values, strict=True)]
    ranks: FloatArray = (np.array(below) + np.array(up_to) - 1) / (2 * values.shape[1])
    return ranks
