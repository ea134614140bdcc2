"""Parents as recipes: what candidates are compared with."""

from __future__ import annotations

from evomerge.execution.protocol import WorkerSpec
from evomerge.recipe.recipe import Recipe
from evomerge.recipe.rules import copy_rule

__all__ = ["parent_recipe"]


def parent_recipe(parent: str, spec: WorkerSpec) -> Recipe:
    """Write the base or one expert, value for value, as a recipe over all of them.

    Args:
        parent: ``base`` or an expert's name.
        spec: Of the worker that is to merge it.
    """
    rules = (copy_rule(parent, spec.experts),)
    return Recipe(experts=spec.experts, rules=rules, base=spec.base, dtype=spec.dtype)
