"""DELLA: drop at random, small changes more often than large ones of the same row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import (
    coefficient,
    density,
    divisor,
    election,
    epsilon,
    lambda_scale,
    normalize,
    rescale,
    scaled,
    vote,
    zero_sign,
)
from evomerge.methods.sparsify import ranked_factors, ranked_masks

__all__ = ["Della", "DellaLinear"]

_SOURCE = "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617"
_MASK = "P[mᵢ=1] = pᵢ = dᵢ − εᵢ + 2εᵢ·rank(|τᵢ| in its row)"
_EXPECTED = "restore the expected L1 or L2 norm"


@dataclass(frozen=True, kw_only=True)
class Della(Method):
    """Keep by rank of magnitude, divide by the probability, elect signs, average what agrees.

    Ranks are read off 9 knots per row; equal changes share the middle of their ranks. Where density
    ± epsilon leaves [0, 1], epsilon is cut to fit, so the mean probability stays the density
    (mergekit refuses such values). ``l1`` and ``l2`` restore the expected norm of the task vector;
    mergekit restores L1 of the very mask.
    """

    name: ClassVar[str] = "della"
    summary: ClassVar[str] = "random drop by rank of magnitude, then sign election"
    formula: ClassVar[str] = f"θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / pᵢ / Σ cᵢ mᵢ over elected signs,  {_MASK}"
    source: ClassVar[str] = _SOURCE
    statistics: ClassVar[tuple[str, ...]] = ("rank_knots", "row_knots")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    epsilon: PerExpert = epsilon()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(True, "the coefficients that survive")
    rescale: str = rescale(norms=_EXPECTED)
    vote: str = vote()
    zero_sign: str = zero_sign()

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        factors = ranked_factors(tensor, self.density, self.epsilon, self.rescale)
        return TensorPlan(
            coefficients=scaled(self.coefficient, factors),
            sparse=ranked_masks(tensor, self.density, self.epsilon, self.rescale),
            combine=election(self.vote, self.zero_sign),
            normalize_by_mask=self.normalize,
            mixing=self.coefficient,
            scale=self.lambda_,
        )


@dataclass(frozen=True, kw_only=True)
class DellaLinear(Method):
    """Keep by rank of magnitude as ``della`` does, then sum without an election."""

    name: ClassVar[str] = "della_linear"
    summary: ClassVar[str] = "random drop by rank of magnitude, then task arithmetic"
    formula: ClassVar[str] = f"θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / pᵢ,  {_MASK}"
    source: ClassVar[str] = _SOURCE
    statistics: ClassVar[tuple[str, ...]] = ("rank_knots", "row_knots")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    epsilon: PerExpert = epsilon()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "all coefficients")
    rescale: str = rescale(norms=_EXPECTED)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        factors = ranked_factors(tensor, self.density, self.epsilon, self.rescale)
        return TensorPlan(
            coefficients=scaled(self.coefficient, factors),
            sparse=ranked_masks(tensor, self.density, self.epsilon, self.rescale),
            scale=self.lambda_ / divisor(self.coefficient, normalize=self.normalize),
        )
