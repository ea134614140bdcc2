"""Recipes as YAML: ours and mergekit's, told apart by their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError
from evomerge.models.reference import (
    ModelRef,
    absolute_reference,
    public_reference,
    relative_reference,
)
from evomerge.recipe.foreign import refuse_foreign
from evomerge.recipe.recipe import Recipe
from evomerge.schema import parse, read_yaml, write_yaml

__all__ = ["dump_recipe", "load_recipe", "public_recipe", "recipe_from_data"]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file, ours or mergekit's.

    Args:
        path: YAML file; relative model folders start at its folder.

    Raises:
        ConfigError: Not a recipe; lists every fault.
        RecipeError: A mergekit file that means something a recipe cannot say.
    """
    content = read_yaml(path)
    refuse_foreign(content, path, wanted="a recipe")
    if "merge_method" in content:
        from evomerge.recipe.mergekit import from_mergekit

        return from_mergekit(content, beside=path.parent)
    recipe = recipe_from_data(content, where=str(path))
    return _with_models(recipe, lambda model: absolute_reference(model, path.parent))


def recipe_from_data(content: Mapping[str, Any], where: str) -> Recipe:
    """Build a recipe from plain data.

    ``method`` and ``parameters`` at the top level stand for one rule that selects everything.

    Args:
        content: As ``Recipe.as_data`` gives it.
        where: Named in faults.

    Raises:
        ConfigError: Listing every fault, one line each.
    """
    content = dict(content)
    if "method" in content and "rules" not in content:
        rule = {key: content.pop(key) for key in ("method", "parameters") if key in content}
        content["rules"] = [rule]
    recipe = parse(Recipe, content, where)
    if faults := recipe.faults():
        raise ConfigError(*(f"{where}: {fault}" for fault in faults))
    return recipe


def dump_recipe(recipe: Recipe, header: str = "", *, beside: Path | None = None) -> str:
    """Write a recipe as YAML; ``load_recipe`` of it gives an equal recipe.

    Args:
        recipe: What to write.
        header: Comment lines above it.
        beside: Folder of the file to be; model folders are named from there. Absent: absolute.
    """
    if beside is not None:
        recipe = _with_models(recipe, lambda model: relative_reference(model, beside))
    return write_yaml(recipe.as_data(), header)


def public_recipe(recipe: Recipe) -> Recipe:
    """Name a recipe's model folders without their place, for what others read."""
    return _with_models(recipe, public_reference)


def _with_models(recipe: Recipe, change: Callable[[ModelRef], ModelRef]) -> Recipe:
    return replace(
        recipe,
        base=None if recipe.base is None else str(change(recipe.base)),
        experts={name: change(reference) for name, reference in recipe.experts.items()},
    )
