"""A recipe and statistics become a plan: per-tensor scalars that a kernel can run."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.kernels.plan import TensorPlan
from evomerge.merging.sources import Sources
from evomerge.methods.base import TensorContext
from evomerge.methods.modifiers import apply_modifiers
from evomerge.recipe.path import MERGED
from evomerge.recipe.recipe import Recipe

__all__ = ["lower", "lower_tensor"]


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
    merged = {hop.layer for hop in recipe.path if hop.source == MERGED}
    for name in sources.names:
        role = sources.architecture.roles[name]
        if not recipe.path or not role.in_layer or role.layer in merged:
            yield name, lower_tensor(recipe, sources, name)


def lower_tensor(recipe: Recipe, sources: Sources, name: str) -> TensorPlan:
    """Lower a recipe for one tensor; see ``lower``."""
    role = sources.architecture.roles[name]
    context = TensorContext(
        name=name,
        experts=tuple(recipe.experts),
        statistics=sources.statistics(name),
        seed=recipe.seed,
        layer=role.layer if role.in_layer else None,
        n_layers=sources.architecture.n_layers,
        is_embedding=role.kind == "embedding",
    )
    position = recipe.rule_for(name, role)
    plan = recipe.bound_methods[position].lower(context)
    return apply_modifiers(plan, recipe.rules[position].modifiers, context)
