"""Model Breadcrumbs: drop the largest changes as outliers and the smallest as noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evomerge.errors import Fault
from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, ParameterValue, PerExpert, TensorContext
from evomerge.methods.parameters import (
    coefficient,
    density,
    divisor,
    election,
    gamma,
    lambda_scale,
    normalize,
    scaled,
    scope,
    trim_rescale,
    vote,
    zero_sign,
)
from evomerge.methods.sparsify import band_statistics, inside_bands, trim_factors

__all__ = ["Breadcrumbs", "BreadcrumbsTies"]

_SOURCE = "Davari and Belilovsky 2024, Model Breadcrumbs, arXiv:2312.06795"
_MASK = "mᵢ = [bottomᵢ ≤ |τᵢ| ≤ topᵢ], a share density of all, below the top share gamma"


@dataclass(frozen=True, kw_only=True)
class Breadcrumbs(Method):
    """Keep a band of magnitudes, sum.

    Shares are of each tensor; the authors' code counts them in each row (``scope: row``). Where
    less than gamma is to be dropped in all, the top is dropped only that far.
    """

    name: ClassVar[str] = "breadcrumbs"
    summary: ClassVar[str] = "drop largest and smallest changes, then task arithmetic"
    formula: ClassVar[str] = f"θ = θ₀ + λ Σ cᵢ mᵢ τᵢ,  {_MASK}"
    source: ClassVar[str] = _SOURCE
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "model_magnitudes", "row_magnitudes")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    gamma: PerExpert = gamma()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "all coefficients")
    rescale: str = trim_rescale()
    scope: str = scope("tensor", "row", "global")

    @classmethod
    def faults(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> list[Fault]:
        """See ``Method.faults``."""
        return [*super().faults(values, experts), *_row_faults(values)]

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: those of the scope."""
        return band_statistics(self.scope, self.rescale)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        kept = inside_bands(tensor, self.density, self.gamma, self.scope)
        return TensorPlan(
            coefficients=scaled(self.coefficient, trim_factors(tensor, kept, self.rescale)),
            sparse=kept,
            scale=self.lambda_ / divisor(self.coefficient, normalize=self.normalize),
        )


@dataclass(frozen=True, kw_only=True)
class BreadcrumbsTies(Method):
    """Keep a band of magnitudes as ``breadcrumbs`` does, then elect signs as ``ties`` does."""

    name: ClassVar[str] = "breadcrumbs_ties"
    summary: ClassVar[str] = "drop largest and smallest changes, then sign election"
    formula: ClassVar[str] = f"θ = θ₀ + λ Σ cᵢ mᵢ τᵢ over elected signs,  {_MASK}"
    source: ClassVar[str] = f"{_SOURCE}; Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "model_magnitudes", "row_magnitudes")

    coefficient: PerExpert = coefficient()
    density: PerExpert = density()
    gamma: PerExpert = gamma()
    lambda_: float = lambda_scale()
    normalize: bool = normalize(False, "the coefficients that survive")
    rescale: str = trim_rescale()
    scope: str = scope("tensor", "row", "global")
    vote: str = vote()
    zero_sign: str = zero_sign()

    @classmethod
    def faults(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> list[Fault]:
        """See ``Method.faults``."""
        return [*super().faults(values, experts), *_row_faults(values)]

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: those of the scope."""
        return band_statistics(self.scope, self.rescale)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``."""
        kept = inside_bands(tensor, self.density, self.gamma, self.scope)
        return TensorPlan(
            coefficients=scaled(self.coefficient, trim_factors(tensor, kept, self.rescale)),
            sparse=kept,
            combine=election(self.vote, self.zero_sign),
            normalize_by_mask=self.normalize,
            mixing=self.coefficient,
            scale=self.lambda_,
        )


def _row_faults(values: Mapping[str, ParameterValue]) -> list[Fault]:
    if values.get("scope") != "row" or values.get("rescale", "none") == "none":
        return []
    return [Fault(("rescale",), f"expected none with scope: row, got {values['rescale']!r}")]
