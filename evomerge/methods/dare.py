"""DARE: drop task-vector elements at random, rescale the rest; then sum, or elect as TIES does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import RandomMask, TensorPlan
from evomerge.methods.base import Method, PerExpert, TensorContext
from evomerge.methods.parameters import coefficient, density, lambda_scale, normalize, safe_sum

__all__ = ["DareLinear", "DareTies"]

_SOURCE = "Yu et al. 2024, Language Models are Super Mario (DARE), arXiv:2311.03099"


@dataclass(frozen=True, kw_only=True)
class DareLinear(Method):
    """Drop at random, divide by the density, sum.

    Rescaling divides by the density as in the paper; mergekit instead matches the L1 norm, which
    differs by the sampling error of the mask.
    """

    name: ClassVar[str] = "dare_linear"
    summary: ClassVar[str] = "random drop and rescale, then task arithmetic"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / dᵢ,  mᵢ ~ Bernoulli(dᵢ)"
    source: ClassVar[str] = _SOURCE

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "all coefficients")

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        divisor = safe_sum(self.coefficient) if self.normalize else 1.0
        return TensorPlan(
            coefficients=_rescaled(self.coefficient, self.density),
            sparse=_masks(tensor, self.density),
            scale=self.lambda_ / divisor,
        )


@dataclass(frozen=True, kw_only=True)
class DareTies(Method):
    """Drop at random, divide by the density, then elect signs and combine what agrees."""

    name: ClassVar[str] = "dare_ties"
    summary: ClassVar[str] = "random drop and rescale, then sign election"
    formula: ClassVar[str] = "θ = θ₀ + λ Σ cᵢ mᵢ τᵢ / dᵢ over elected signs,  mᵢ ~ Bernoulli(dᵢ)"
    source: ClassVar[str] = _SOURCE

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "the coefficients that survive")

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        return TensorPlan(
            coefficients=_rescaled(self.coefficient, self.density),
            sparse=_masks(tensor, self.density),
            elect="sum",
            normalize_by_mask=self.normalize,
            mixing=self.coefficient,
            scale=self.lambda_,
        )


def _rescaled(coefficients: PerExpert, densities: PerExpert) -> PerExpert:
    return tuple(c / d if d > 0 else 0.0 for c, d in zip(coefficients, densities, strict=True))


def _masks(tensor: TensorContext, densities: PerExpert) -> tuple[RandomMask | None, ...]:
    return tuple(
        None if d >= 1.0 else RandomMask(key=tensor.mask_key(i), keep=d)
        for i, d in enumerate(densities)
    )
