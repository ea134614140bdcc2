"""The statistics of one tensor across base and experts, computed on first use and kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.statistics.gram import gram_matrix
from evomerge.statistics.histogram import MagnitudeHistogram

__all__ = ["TensorStatistics"]

FloatArray = NDArray[np.float64]


class TensorStatistics:
    """What a method may ask about one tensor when it lowers a recipe.

    Nothing here depends on coefficients or densities, so one computation serves every candidate.

    Args:
        base: Base tensor, or ``None`` for methods without a base.
        experts: One tensor per expert in recipe order, shaped like the base.
    """

    def __init__(self, base: torch.Tensor | None, experts: Sequence[torch.Tensor]) -> None:
        self._base = base
        self._experts = experts
        self._histograms: dict[int, MagnitudeHistogram] = {}

    def magnitudes(self, expert: int) -> MagnitudeHistogram:
        """Return the magnitude histogram of one expert's task vector."""
        if expert not in self._histograms:
            theta_0 = 0.0 if self._base is None else _flat(self._base)
            self._histograms[expert] = MagnitudeHistogram.of(_flat(self._experts[expert]) - theta_0)
        return self._histograms[expert]

    @cached_property
    def model_gram(self) -> FloatArray:
        """Gram matrix of the models themselves: the base first (if any), then the experts."""
        models = [*([] if self._base is None else [self._base]), *self._experts]
        return gram_matrix([_flat(model) for model in models])


def _flat(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.to(torch.float32).reshape(-1).numpy()
    return array
