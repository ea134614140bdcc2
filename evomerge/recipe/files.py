"""Recipes as YAML: ours and mergekit's, told apart by their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from os.path import relpath
from pathlib import Path
from typing import Any

from evomerge.errors import ConfigError, Fault, changed, placed, under
from evomerge.models.reference import (
    ModelRef,
    absolute_reference,
    public_reference,
    relative_reference,
)
from evomerge.plain_yaml import placed_in
from evomerge.recipe.foreign import refuse_foreign
from evomerge.recipe.recipe import Recipe
from evomerge.schema import parse, read_yaml, write_yaml

__all__ = [
    "RECIPE_FILE",
    "dump_recipe",
    "load_recipe",
    "public_recipe",
    "read_recipe",
    "recipe_from_data",
    "stored_recipe",
]

RECIPE_FILE = "recipe.yaml"
"""What the recipe beside a merge is called."""


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
    with placed_in(path):
        return read_recipe(content, path.parent)


def read_recipe(content: Mapping[str, Any], beside: Path) -> Recipe:
    """Build a recipe from the keys of a recipe file, ours or mergekit's; see ``load_recipe``.

    Args:
        content: The keys.
        beside: Where relative model folders start.
    """
    if "merge_method" in content:
        from evomerge.recipe.mergekit import from_mergekit

        return from_mergekit(content, beside=beside)
    recipe = recipe_from_data(content)
    if recipe.prompts is not None:
        with under("prompts", "file"):
            recipe = replace(recipe, prompts=recipe.prompts.beside(beside).sealed())
    return _with_models(recipe, lambda model: absolute_reference(model, beside))


def stored_recipe(content: Mapping[str, Any], trial: int) -> Recipe:
    """Build the recipe that is stored with a trial.

    Raises:
        ConfigError: It is damaged; every fault.
    """
    with placed(f"trial {trial}"):
        return recipe_from_data(content)


def recipe_from_data(content: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain data.

    ``method`` and ``parameters`` at the top level stand for one rule that selects everything.

    Args:
        content: As ``Recipe.as_data`` gives it.

    Raises:
        ConfigError: Every fault.
    """
    content = dict(content)
    is_short = "method" in content and "rules" not in content
    if is_short:
        rule = {key: content.pop(key) for key in ("method", "parameters") if key in content}
        content["rules"] = [rule]
    with changed(_of_the_rule) if is_short else nullcontext():
        recipe = parse(Recipe, content)
        if faults := recipe.faults():
            raise ConfigError(*faults)
    return recipe


def _of_the_rule(fault: Fault) -> Fault:
    """Name the key of a recipe's only rule as it is written: at the top level."""
    is_inside = fault.path[:2] == ("rules", 0)
    return replace(fault, path=fault.path[2:]) if is_inside else fault


def dump_recipe(recipe: Recipe, header: str = "", *, beside: Path | None = None) -> str:
    """Write a recipe as YAML; ``load_recipe`` of it gives an equal recipe.

    Args:
        recipe: What to write.
        header: Comment lines above it.
        beside: Folder of the file to be; model folders are named from there. Absent: absolute.
    """
    if beside is not None:
        recipe = _with_models(recipe, lambda model: relative_reference(model, beside))
        recipe = _with_prompts(recipe, lambda file: relpath(file, beside))
    return write_yaml(recipe.as_data(), header)


def public_recipe(recipe: Recipe) -> Recipe:
    """Name a recipe's models and prompts without their place, for what others read."""
    return _with_prompts(_with_models(recipe, public_reference), lambda file: Path(file).name)


def _with_prompts(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    if (prompts := recipe.prompts) is None:
        return recipe
    return replace(recipe, prompts=replace(prompts, file=change(prompts.file)))


def _with_models(recipe: Recipe, change: Callable[[ModelRef], ModelRef]) -> Recipe:
    return replace(
        recipe,
        base=None if recipe.base is None else str(change(recipe.base)),
        experts={name: change(reference) for name, reference in recipe.experts.items()},
    )
