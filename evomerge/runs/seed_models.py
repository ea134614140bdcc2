"""Which models a search starts from: read from recipe files and earlier studies, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from evomerge import origins
from evomerge.analysis.front import front
from evomerge.config.experiment import SeedRecipe, SeedsConfig
from evomerge.errors import Fault, changed, collected
from evomerge.methods.registry import method
from evomerge.origins import is_single_model
from evomerge.recipe.files import load_recipe, recipe_from_data
from evomerge.runs.reading import latest_study, read_study
from evomerge.space.baselines import Seeds, over_models
from evomerge.space.protocol import ModelSet
from evomerge.study.folder import StudyFolder

__all__ = ["make_seeds", "resolve_seeds"]


def resolve_seeds(config: SeedsConfig, faults: list[Fault]) -> SeedsConfig:
    """Read the recipes that seeds mention; the result depends on no other file.

    Args:
        config: With absolute paths.
        faults: Gets what is wrong with files and studies that cannot be read.
    """
    recipes: list[str | SeedRecipe] = []
    for i, source in enumerate(config.recipes):
        with collected(faults, "recipes", i):
            recipes.append(source if isinstance(source, SeedRecipe) else _read(source))
    for i, study in enumerate(config.studies):
        with collected(faults, "studies", i):
            recipes += _front_recipes(StudyFolder(Path(study)))
    return config.model_copy(update={"recipes": recipes, "studies": []})


def make_seeds(config: SeedsConfig, models: ModelSet, faults: list[Fault]) -> Seeds:
    """Build the seeds of resolved keys.

    Args:
        config: As ``resolve_seeds`` returns it.
        models: What is mixed.
        faults: Gets every coefficient out of range, and every recipe that does not fit the models.
    """
    coefficient = method("task_arithmetic").parameters()["coefficient"]
    for i, value in enumerate(config.task_arithmetic):
        if text := coefficient.fault(value):
            faults.append(Fault(("task_arithmetic", i), text))
    recipes = {}
    for seed in config.recipes:
        assert isinstance(seed, SeedRecipe), "resolve_seeds reads files"
        if seed.origin in recipes:
            text = f"expected different names, got {seed.origin} twice"
            faults.append(Fault(("recipes",), text))
        with collected(faults, "recipes"), changed(partial(_of_recipe, seed.origin)):
            recipes[seed.origin] = over_models(recipe_from_data(seed.recipe), models)
    return Seeds(config.parents, config.averages, tuple(config.task_arithmetic), recipes)


def _of_recipe(origin: str, fault: Fault) -> Fault:
    return Fault((), f"{origin}: {fault}")


def _read(source: str) -> SeedRecipe:
    recipe = load_recipe(Path(source))
    return SeedRecipe(origin=origins.recipe(Path(source).stem), recipe=recipe.as_data())


def _front_recipes(folder: StudyFolder) -> Iterator[SeedRecipe]:
    study = read_study(latest_study(folder))
    for trial in front(study):
        if not is_single_model(trial.origin):
            origin = origins.study(study.name, trial.number)
            yield SeedRecipe(origin=origin, recipe=dict(trial.recipe))
