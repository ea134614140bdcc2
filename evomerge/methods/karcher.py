"""Karcher mean: the point on the sphere with the least squared distance to all experts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext, shared
from evomerge.methods.parameters import coefficient, shares

__all__ = ["Karcher"]


_SMALL = 1e-7  # sine below which an expert lies at the iterate or opposite to it


@dataclass(frozen=True, kw_only=True)
class Karcher(Method):
    """Average directions on the sphere exactly, and lengths apart from them; no base takes part.

    Every iterate is a combination of the experts, so the iteration runs on their inner products. It
    starts at their normalised sum. An expert opposite to an iterate pulls in no direction.
    """

    name: ClassVar[str] = "karcher"
    summary: ClassVar[str] = "exact mean on the sphere of any number of models"
    formula: ClassVar[str] = (
        "θ = (Σ cᵢ‖θᵢ‖) u,  u = argmin Σ cᵢ ∠(u, θᵢ)² over unit vectors,  coefficients sum to 1"
    )
    source: ClassVar[str] = (
        "Karcher 1977, Riemannian Center of Mass; mergekit (karcher), arXiv:2403.13257"
    )
    statistics: ClassVar[tuple[str, ...]] = ("model_gram",)
    needs_base: ClassVar[bool] = False

    coefficient: PerExpert = coefficient("share of each expert, before normalising")
    max_iter: float = shared(100, "most steps of the iteration", low=1.0, high=10_000.0)
    tol: float = shared(
        1e-12,
        "length of a step (and angle of an expert's pull) that counts as none",
        low=0.0,
        high=1.0,
    )

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        n = len(tensor.experts)
        portions = np.array(shares(self.coefficient))
        gram = tensor.statistics.model_gram[-n:, -n:]
        return TensorPlan(
            coefficients=tuple(map(float, self._factors(portions, gram))),
            delta=False,
            base_coefficient=0.0,
        )

    def _factors(self, portions: FloatArray, gram: FloatArray) -> FloatArray:
        norms = np.sqrt(gram.diagonal())
        if not np.all(norms > 0):  # a zero tensor has no direction
            return portions
        cosines = gram / np.outer(norms, norms)
        factors: FloatArray = (portions @ norms) * self._direction(portions, cosines) / norms
        return factors

    def _direction(self, portions: FloatArray, cosines: FloatArray) -> FloatArray:
        """Find the mean of unit vectors u_i as the a with u = Σ a_i u_i.

        Args:
            portions: (k,) coefficients that sum to 1.
            cosines: (k, k) inner products of the unit vectors.

        Returns:
            (k,) with aᵀ · cosines · a = 1.
        """
        position = portions / _length(portions, cosines)
        for _ in range(int(self.max_iter)):
            cosine = np.clip(cosines @ position, -1.0, 1.0)
            angle = np.arccos(cosine)
            sine = np.sin(angle)
            stretch = np.divide(angle, sine, out=np.ones_like(sine), where=sine > _SMALL)
            pull = portions * np.where(angle < self.tol, 0.0, stretch)
            step = pull - (pull @ cosine) * position
            size = _length(step, cosines)
            if size < self.tol:
                break
            position = np.cos(size) * position + np.sin(size) / size * step
            position /= _length(position, cosines)
        return position


def _length(combination: FloatArray, cosines: FloatArray) -> float:
    return math.sqrt(max(float(combination @ cosines @ combination), 1e-300))
