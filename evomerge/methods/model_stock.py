"""Model Stock: how far to trust the mean of the experts, from the angle between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.kernels.plan import Table, TensorPlan
from evomerge.methods.base import Method, TensorContext, choice, shared
from evomerge.methods.parameters import lambda_scale

__all__ = ["ModelStock"]


_SINGULAR = 1e-6  # a denominator below this gives up on the mean


@dataclass(frozen=True, kw_only=True)
class ModelStock(Method):
    """Go from the base towards the mean of the experts, further the more they agree.

    For more than two experts either their pairwise cosines are averaged (``average: cosine``, as
    in mergekit) or their angles. By ``filter_wise`` each row has its own ratio.
    """

    name: ClassVar[str] = "model_stock"
    summary: ClassVar[str] = "towards the mean, as far as the angle between experts says"
    formula: ClassVar[str] = "θ = θ₀ + λ t·mean(τᵢ),  t = N c/(1 + (N−1) c),  c = mean cos(τᵢ, τⱼ)"
    source: ClassVar[str] = "Jang et al. 2024, Model Stock, arXiv:2403.19522"
    statistics: ClassVar[tuple[str, ...]] = ("task_gram", "row_task_gram")
    n_experts: ClassVar[tuple[int, int | None]] = (2, None)

    lambda_: float = lambda_scale()
    average: str = choice(("cosine", "angle"), "what is averaged over pairs of experts")
    filter_wise: bool = shared(False, "a ratio of its own for each row")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``."""
        return ("row_task_gram",) if self.filter_wise else ("task_gram",)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        n, statistics = len(tensor.experts), tensor.statistics
        gram = statistics.row_task_gram if self.filter_wise else statistics.task_gram[None]
        ratios = _ratios(gram, self.average)
        if not self.filter_wise:
            return TensorPlan(coefficients=(float(ratios[0]) / n,) * n, scale=self.lambda_)
        table = Table(ratios.astype(np.float32))
        return TensorPlan(coefficients=(1.0 / n,) * n, row_scale=(table,) * n, scale=self.lambda_)


def _ratios(gram: FloatArray, average: str) -> FloatArray:
    """Compute t for each of (m, n, n) Gram matrices; 0 where it is not defined."""
    n = gram.shape[-1]
    norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    lengths = norms[:, :, None] * norms[:, None, :]
    cosines = np.divide(gram, lengths, out=np.zeros_like(gram), where=lengths > 0)
    first, second = np.triu_indices(n, 1)
    pairs = np.clip(cosines[:, first, second], -1.0, 1.0)
    c = np.cos(np.arccos(pairs).mean(axis=1)) if average == "angle" else pairs.mean(axis=1)
    denominator = 1.0 + (n - 1) * c
    defined = np.abs(denominator) > _SINGULAR
    ratios: FloatArray = np.divide(n * c, denominator, out=np.zeros_like(c), where=defined)
    return ratios
