"""Sparsifiers: what is kept of each task vector, for methods that keep everything."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from evomerge.errors import RecipeError
from evomerge.kernels.plan import Sparsifier, TensorPlan
from evomerge.methods.base import TensorContext
from evomerge.methods.declared import PerExpert
from evomerge.methods.modifiers.base import Modifier, check_adds_task_vectors
from evomerge.methods.parameters import density, epsilon, gamma, rescale, scaled, scope
from evomerge.methods.sparsify import (
    band_statistics,
    inside_bands,
    random_factors,
    random_masks,
    random_statistics,
    ranked_factors,
    ranked_masks,
    upper_bands,
)

__all__ = ["Magnitude", "OutlierBand", "RandomDrop", "Ranked"]


@dataclass(frozen=True, kw_only=True)
class Magnitude(Modifier):
    """Keep the largest changes of each expert, as TIES trims."""

    name: ClassVar[str] = "magnitude"
    summary: ClassVar[str] = "keep the largest changes"
    source: ClassVar[str] = "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "model_magnitudes")

    density: PerExpert = density()
    scope: str = scope("tensor", "global")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Modifier.statistics_used``."""
        return band_statistics(self.scope)

    def apply(self, plan: TensorPlan, tensor: TensorContext) -> TensorPlan:
        """See ``Modifier.apply``."""
        return _sparsified(self.name, plan, tensor, upper_bands(tensor, self.density, self.scope))


@dataclass(frozen=True, kw_only=True)
class OutlierBand(Modifier):
    """Drop the largest changes of each expert and keep the largest of the rest, as Breadcrumbs."""

    name: ClassVar[str] = "outlier_band"
    summary: ClassVar[str] = "drop largest and smallest changes"
    source: ClassVar[str] = "Davari and Belilovsky 2024, Model Breadcrumbs, arXiv:2312.06795"
    statistics: ClassVar[tuple[str, ...]] = ("magnitudes", "model_magnitudes", "row_magnitudes")

    density: PerExpert = density()
    gamma: PerExpert = gamma()
    scope: str = scope("tensor", "row", "global")

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Modifier.statistics_used``."""
        return band_statistics(self.scope)

    def apply(self, plan: TensorPlan, tensor: TensorContext) -> TensorPlan:
        """See ``Modifier.apply``."""
        bands = inside_bands(tensor, self.density, self.gamma, self.scope)
        return _sparsified(self.name, plan, tensor, bands)


@dataclass(frozen=True, kw_only=True)
class RandomDrop(Modifier):
    """Drop at random and rescale, as DARE."""

    name: ClassVar[str] = "random_drop"
    summary: ClassVar[str] = "drop at random, rescale"
    source: ClassVar[str] = (
        "Yu et al. 2024, Language Models are Super Mario (DARE), arXiv:2311.03099"
    )
    statistics: ClassVar[tuple[str, ...]] = ("moments", "masked_l1", "masked_l2")

    density: PerExpert = density()
    rescale: str = rescale()

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Modifier.statistics_used``."""
        return random_statistics(self.rescale)

    def apply(self, plan: TensorPlan, tensor: TensorContext) -> TensorPlan:
        """See ``Modifier.apply``."""
        factors = random_factors(tensor, self.density, self.rescale)
        return _sparsified(self.name, plan, tensor, random_masks(tensor, self.density), factors)


@dataclass(frozen=True, kw_only=True)
class Ranked(Modifier):
    """Drop at random, small changes more often, and rescale, as DELLA."""

    name: ClassVar[str] = "ranked"
    summary: ClassVar[str] = "drop at random by rank of magnitude, rescale"
    source: ClassVar[str] = "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617"
    statistics: ClassVar[tuple[str, ...]] = ("rank_knots", "row_knots")

    density: PerExpert = density()
    epsilon: PerExpert = epsilon()
    rescale: str = rescale(norms="restore the expected L1 or L2 norm")

    def apply(self, plan: TensorPlan, tensor: TensorContext) -> TensorPlan:
        """See ``Modifier.apply``."""
        factors = ranked_factors(tensor, self.density, self.epsilon, self.rescale)
        masks = ranked_masks(tensor, self.density, self.epsilon, self.rescale)
        return _sparsified(self.name, plan, tensor, masks, factors)


def _sparsified(
    name: str,
    plan: TensorPlan,
    tensor: TensorContext,
    sparse: tuple[Sparsifier | None, ...],
    factors: PerExpert | None = None,
) -> TensorPlan:
    """Set what is kept; rescaling takes part in the vote but not in the divisor."""
    check_adds_task_vectors(name, plan, tensor)
    if any(kept is not None for kept in plan.sparse or ()):
        raise RecipeError(
            f"modifier {name!r}: expected a method that keeps every element, got one that trims, "
            f"drops or limits by itself (tensor {tensor.name}); leave one of the two out"
        )
    mixing = plan.mixing if plan.mixing is not None else plan.coefficients
    coefficients = plan.coefficients if factors is None else scaled(plan.coefficients, factors)
    return dataclasses.replace(plan, sparse=sparse, coefficients=coefficients, mixing=mixing)
