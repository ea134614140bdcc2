"""A mergekit file as a recipe: its models, its slices, and what a recipe cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import Fault, RecipeError
from evomerge.models.architecture import Architecture
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.reference import absolute_reference, resolve_model
from evomerge.recipe.mergekit.file import MergekitFile, Slice, read_file
from evomerge.recipe.mergekit.heads import (
    all_filters,
    expert_names,
    recipe_dtype,
)
from evomerge.recipe.mergekit.keys import COUNTERPARTS, PASSTHROUGH
from evomerge.recipe.mergekit.rules import gather_rules
from evomerge.recipe.mergekit.stacking import stacked
from evomerge.recipe.mergekit.tokenizers import tokenizer_choice
from evomerge.recipe.mergekit.values import evaluate_settings
from evomerge.recipe.recipe import Recipe

__all__ = ["from_mergekit"]


def from_mergekit(content: Mapping[str, Any], *, beside: Path) -> Recipe:
    """Turn a mergekit file into a recipe that merges every tensor with the same numbers.

    Opens the base (or first model) for its layers and tensor names. The seed of random masks is 0:
    mergekit takes its own from the command line.

    Args:
        content: As YAML gives it.
        beside: Relative model folders start here.

    Raises:
        ConfigError: Keys or values that mergekit does not have, one line per fault.
        RecipeError: The file means something that a recipe cannot say.
        CheckpointError: The model that lends its tensor names cannot be opened.
    """
    file = read_file(content)
    if file.merge_method == PASSTHROUGH:
        return stacked(file, beside=beside)
    base = _base(file)
    experts = _experts(file, base)
    anchor = next(iter(experts)) if base is None else base
    checkpoint = Checkpoint(resolve_model(absolute_reference(anchor, beside)))
    architecture = Architecture(checkpoint.config, checkpoint.names)
    slices = _slices_by_layers(file, architecture.n_layers)
    rules = evaluate_settings(file, slices, experts, architecture.roles)
    recipe = Recipe(
        experts={name: absolute_reference(model, beside) for model, name in experts.items()},
        rules=gather_rules(rules, architecture.roles, all_filters(file)),
        base=None if base is None else absolute_reference(base, beside),
        dtype=recipe_dtype(file),
        tokenizer=tokenizer_choice(file, experts, base),
    )
    if faults := recipe.faults():
        raise RecipeError(*map(str, faults))
    return recipe


def _base(file: MergekitFile) -> str | None:
    """Find the base; methods that read it find it among the sources of each slice."""
    bases = {piece.base_model or file.base_model for piece in file.slices}
    if len(bases) > 1:
        raise RecipeError(
            "expected one base_model for all slices, got several, which cannot be imported yet"
        )
    base, counterpart = bases.pop(), COUNTERPARTS[file.merge_method]
    is_read = counterpart.base == "read" or (counterpart.base == "optional" and base is not None)
    everyone = {source.model for piece in file.slices for source in piece.sources}
    for position, piece in enumerate(file.slices):
        models = [source.model for source in piece.sources]
        if is_read and base not in models:
            text = (
                f"expected base_model among the sources, as "
                f"{file.merge_method} reads it, got base_model {base!r} and sources {models}"
            )
            raise RecipeError(Fault(("slices", position), text))
        if len(set(models)) < len(models):
            text = f"expected each model once, got {models}"
            raise RecipeError(Fault(("slices", position), text))
        if not counterpart.has_coefficients and everyone - set(models):
            text = (
                f"expected all models in all slices, as "
                f"{file.merge_method} has no coefficient that leaves one out, got {models}"
            )
            raise RecipeError(Fault(("slices", position), text))
    return base


def _experts(file: MergekitFile, base: str | None) -> dict[str, str]:
    """Name the models that are merged, each after the last component of its path."""
    models = dict.fromkeys(source.model for piece in file.slices for source in piece.sources)
    counterpart = COUNTERPARTS[file.merge_method]
    if base is not None and counterpart.base != "model":
        del models[base]
    fewest, most = counterpart.n_experts
    if len(models) < fewest or (most is not None and len(models) > most):
        wanted = "one model" if fewest == most == 1 else f"{fewest} models"
        at_least = "at least " if most is None else ""
        raise RecipeError(f"expected {at_least}{wanted} besides the base, got {len(models)}")
    return expert_names(models)


def _slices_by_layers(file: MergekitFile, n_layers: int) -> dict[range, Slice]:
    """Find the layers each slice is for; refuse slices that repeat, reorder or drop layers."""
    found: dict[range, Slice] = {}
    for position, piece in enumerate(file.slices):
        ranges = {source.layer_range or (0, n_layers) for source in piece.sources}
        start, stop = min(ranges)
        expected = sum(len(layers) for layers in found)
        if len(ranges) > 1 or start != expected or stop <= start:
            got = ", ".join(str(list(layer_range)) for layer_range in sorted(ranges))
            text = (
                f"expected one layer_range for all sources, from "
                f"{expected} up, got {got}; repeated, reordered and skipped layers cannot be "
                "imported yet"
            )
            raise RecipeError(Fault(("slices", position), text))
        found[range(start, stop)] = piece
    if (covered := sum(len(layers) for layers in found)) != n_layers:
        raise RecipeError(
            f"expected slices over all {n_layers} layers, got {covered}; models of "
            "another depth cannot be imported yet"
        )
    return found
