"""Parents as recipes: what candidates are compared with."""

from __future__ import annotations

from evomerge.execution.protocol import WorkerSpec
from evomerge.recipe.recipe import Recipe, Rule

__all__ = ["parent_recipe"]


def parent_recipe(parent: str, spec: WorkerSpec) -> Recipe:
    """Write the base or one expert, value for value, as a recipe over all of them.

    Args:
        parent: ``base`` or an expert's name.
        spec: Of the worker that is to merge it.
    """
    mix = {name: float(name == parent) for name in spec.experts}
    method = "task_arithmetic" if parent == "base" else "linear"
    rules = (Rule(method, {"coefficient": mix}),)
    return Recipe(experts=spec.experts, rules=rules, base=spec.base, dtype=spec.dtype)
