"""Where the models of an experiment are: what may change about them during a study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evomerge.config.experiment import Experiment, SeedRecipe
from evomerge.models.reference import ModelRef, reference_data
from evomerge.recipe.path import BASE

__all__ = ["with_models_at"]


def with_models_at(experiment: Experiment, places: Mapping[str, ModelRef]) -> Experiment:
    """Say that some models are elsewhere, also in the recipes that the search starts from.

    Args:
        experiment: Resolved.
        places: By ``base`` or the name of an expert.
    """
    models, old = experiment.models, experiment.models.located()
    if all(old[name] == place for name, place in places.items()):
        return experiment
    new = {**old, **places}
    experts = {name: new[name] for name in models.experts}
    models = models.model_copy(update={BASE: new[BASE], "experts": experts})
    # A recipe of elsewhere has names of its own, and knows the models by their places.
    moved = {json.dumps(reference_data(old[name])): reference_data(new[name]) for name in new}
    recipes = [
        seed if isinstance(seed, str) else _moved(seed, moved) for seed in experiment.seeds.recipes
    ]
    changes: dict[str, object] = {"models": models}
    if recipes:
        changes["seeds"] = experiment.seeds.model_copy(update={"recipes": recipes})
    return experiment.model_copy(update=changes)


def _moved(seed: SeedRecipe, moved: Mapping[str, Any]) -> SeedRecipe:
    def place(reference: Any) -> Any:
        return moved.get(json.dumps(reference), reference)

    recipe = dict(seed.recipe)
    recipe["experts"] = {name: place(reference) for name, reference in recipe["experts"].items()}
    if BASE in recipe:
        recipe[BASE] = place(recipe[BASE])
    return seed.model_copy(update={"recipe": recipe})
