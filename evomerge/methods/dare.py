"""DARE: drop task-vector elements at random, rescale the rest; then sum, or elect as TIES does."""

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
    lambda_scale,
    normalize,
    rescale,
    scaled,
    vote,
    zero_sign,
)
from evomerge.methods.sparsify import random_factors, random_masks, random_statistics

__all__ = ["DareLinear", "DareTies"]

_SOURCE = "Yu et al. 2024, Language Models are Super Mario (DARE), arXiv:2311.03099"


@dataclass(frozen=True, kw_only=True)
class DareLinear(Method):
    """Drop at random, divide by the density, sum.

    Rescaling divides by the density as in the paper (``inv_p``). mergekit matches the L1 norm
    (``l1``), which differs by the sampling error of the mask.
    """

    name: ClassVar[str] = "dare_linear"
    summary: ClassVar[str] = "random drop and rescale, then task arithmetic"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / dᵢ,  mᵢ ~ Bernoulli(dᵢ)"
    source: ClassVar[str] = _SOURCE
    covers: ClassVar[tuple[str, ...]] = ("DARE",)
    statistics: ClassVar[tuple[str, ...]] = ("moments", "masked_l1", "masked_l2")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "all coefficients")
    rescale: str = rescale()

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: only norms need any."""
        return random_statistics(self.rescale)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        factors = random_factors(tensor, self.density, self.rescale)
        return TensorPlan(
            coefficients=scaled(self.coefficient, factors),
            sparse=random_masks(tensor, self.density),
            scale=self.lambda_ / divisor(self.coefficient, normalize=self.normalize),
        )


@dataclass(frozen=True, kw_only=True)
class DareTies(Method):
    """Drop at random, divide by the density, then elect signs and combine what agrees.

    ``rescale`` as in ``dare_linear``; the election as in ``ties``.
    """

    name: ClassVar[str] = "dare_ties"
    summary: ClassVar[str] = "random drop and rescale, then sign election"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / dᵢ over elected signs,  mᵢ ~ Bernoulli(dᵢ)"
    source: ClassVar[str] = _SOURCE
    statistics: ClassVar[tuple[str, ...]] = ("moments", "masked_l1", "masked_l2")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "the coefficients that survive")
    rescale: str = rescale()
    vote: str = vote()
    zero_sign: str = zero_sign()

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: only norms need any."""
        return random_statistics(self.rescale)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        factors = random_factors(tensor, self.density, self.rescale)
        return TensorPlan(
            coefficients=scaled(self.coefficient, factors),
            sparse=random_masks(tensor, self.density),
            combine=election(self.vote, self.zero_sign),
            normalize_by_mask=self.normalize,
            mixing=self.coefficient,
            scale=self.lambda_,
        )
