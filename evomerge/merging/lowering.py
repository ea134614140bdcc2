"""A recipe and statistics become a plan: per-tensor scalars that a kernel can run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from evomerge.kernels.plan import TensorPlan
from evomerge.kernels.scalars import Scalars
from evomerge.merging.sources import Sources
from evomerge.methods.base import TensorContext
from evomerge.methods.modifiers import bind_modifiers
from evomerge.methods.slopes import Lowering, ParameterSlopes
from evomerge.recipe.path import MERGED
from evomerge.recipe.recipe import Recipe

__all__ = ["PlannedTensor", "lower", "lower_tensor", "merged_names", "parameter_slopes"]


@dataclass(frozen=True, eq=False)
class PlannedTensor:
    """What to merge and where to; the tensors of base and experts are found by name.

    Attributes:
        name: Of the tensor.
        plan: The pass.
        out: Contiguous tensor that is overwritten.
    """

    name: str
    plan: TensorPlan
    out: torch.Tensor


def lower(recipe: Recipe, sources: Sources) -> Iterator[tuple[str, TensorPlan]]:
    """Lower a recipe tensor by tensor.

    Args:
        recipe: Its base and experts are those of ``sources``, in the same order.
        sources: Opened models with their statistics.

    Yields:
        Tensor name and plan, in sorted name order; only for tensors that the model has a use for,
        if the recipe has a path.

    Raises:
        RecipeError: A parameter is illegal or a tensor has no rule.
    """
    for name in merged_names(recipe, sources):
        yield name, lower_tensor(recipe, sources, name)


def merged_names(recipe: Recipe, sources: Sources) -> Iterator[str]:
    """Name the tensors that a recipe merges: all, or those that its path has a use for."""
    merged = {hop.layer for hop in recipe.path if hop.source == MERGED}
    for name in sources.names:
        role = sources.architecture.roles[name]
        if not recipe.path or not role.in_layer or role.layer in merged:
            yield name


def lower_tensor(recipe: Recipe, sources: Sources, name: str) -> TensorPlan:
    """Lower a recipe for one tensor; see ``lower``."""
    lowering = _lowering(recipe, sources, name)
    return lowering.plan(_context(recipe, sources, name, lowering))


def parameter_slopes(
    recipe: Recipe, sources: Sources, name: str, along_plan: Scalars
) -> ParameterSlopes:
    """Find an objective's slopes along the parameters of the rule that merges a tensor.

    Args:
        recipe: See ``lower``.
        sources: See ``lower``.
        name: Of the tensor.
        along_plan: Slopes along the scalars of its plan.
    """
    lowering = _lowering(recipe, sources, name)
    return lowering.slopes(_context(recipe, sources, name, lowering), along_plan)


def _context(recipe: Recipe, sources: Sources, name: str, lowering: Lowering) -> TensorContext:
    role = sources.architecture.roles[name]
    return TensorContext(
        name=name,
        experts=tuple(recipe.experts),
        statistics=sources.statistics(name, lowering.method.prepared),
        seed=recipe.seed,
        layer=role.layer if role.in_layer else None,
        n_layers=sources.architecture.n_layers,
        is_embedding=role.kind == "embedding",
    )


def _lowering(recipe: Recipe, sources: Sources, name: str) -> Lowering:
    position = recipe.rule_for(name, sources.architecture.roles[name])
    modifiers = bind_modifiers(recipe.rules[position].modifiers, tuple(recipe.experts))
    return Lowering(recipe.bound_methods[position], modifiers)
