"""A recipe and statistics become a plan: per-tensor scalars that a kernel can run."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.kernels.plan import TensorPlan
from evomerge.merging.sources import Sources
from evomerge.methods.base import TensorContext
from evomerge.recipe.recipe import Recipe

__all__ = ["lower"]


def lower(recipe: Recipe, sources: Sources) -> Iterator[tuple[str, TensorPlan]]:
    """Lower a recipe tensor by tensor.

    Args:
        recipe: Its base and experts are those of ``sources``, in the same order.
        sources: Opened models with their statistics.

    Yields:
        Tensor name and plan, in sorted name order.

    Raises:
        RecipeError: A parameter is illegal or a tensor has no rule.
    """
    methods = recipe.bound_methods
    for name in sources.anchor.names:
        position = recipe.rule_for(name, sources.architecture.roles[name])
        context = TensorContext(
            name=name,
            experts=tuple(recipe.experts),
            statistics=sources.statistics(name),
            seed=recipe.seed,
        )
        yield name, methods[position].lower(context)
