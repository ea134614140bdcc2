"""Which models a search starts from: read from recipe files and earlier studies, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evomerge import origins
from evomerge.analysis.front import front
from evomerge.config.experiment import SeedRecipe, SeedsConfig
from evomerge.errors import ConfigError, EvomergeError, SpaceError
from evomerge.methods.registry import method
from evomerge.origins import is_single_model
from evomerge.recipe.files import load_recipe, recipe_from_data
from evomerge.runs.reading import latest_study, read_study
from evomerge.space.baselines import Seeds, over_models
from evomerge.space.protocol import ModelSet
from evomerge.study.folder import StudyFolder

__all__ = ["make_seeds", "resolve_seeds"]


def resolve_seeds(config: SeedsConfig, where: str, faults: list[str]) -> SeedsConfig:
    """Read the recipes that seeds mention; the result depends on no other file.

    Args:
        config: With absolute paths.
        where: Named in faults.
        faults: Gets a line for every file or study that cannot be read.
    """
    recipes: list[str | SeedRecipe] = []
    for source in [*config.recipes, *(StudyFolder(Path(study)) for study in config.studies)]:
        try:
            recipes += [source] if isinstance(source, SeedRecipe) else _read(source)
        except EvomergeError as err:
            faults += [f"{where}: {line}" for line in str(err).splitlines()]
    return config.model_copy(update={"recipes": recipes, "studies": []})


def make_seeds(config: SeedsConfig, models: ModelSet, where: str, faults: list[str]) -> Seeds:
    """Build the seeds of resolved keys.

    Args:
        config: As ``resolve_seeds`` returns it.
        models: What is mixed.
        where: Named in faults.
        faults: Gets a line for every coefficient out of range, and for every recipe that does not
            fit the models.
    """
    coefficient = method("task_arithmetic").parameters()["coefficient"]
    wrong = filter(None, map(coefficient.fault, config.task_arithmetic))
    faults += [f"{where}.task_arithmetic: {fault}" for fault in wrong]
    recipes = {}
    for seed in config.recipes:
        assert isinstance(seed, SeedRecipe), "resolve_seeds reads files"
        if seed.origin in recipes:
            faults.append(f"{where}: {seed.origin}: expected different names, got this one twice")
        try:
            recipe = recipe_from_data(seed.recipe, f"{where}: {seed.origin}")
            recipes[seed.origin] = over_models(recipe, models)
        except ConfigError as err:
            faults += err.faults
        except SpaceError as err:
            faults.append(f"{where}: {seed.origin}: {err}")
    return Seeds(config.parents, config.averages, tuple(config.task_arithmetic), recipes)


def _read(source: str | StudyFolder) -> list[SeedRecipe]:
    if isinstance(source, StudyFolder):
        return list(_front_recipes(source))
    recipe = load_recipe(Path(source))
    return [SeedRecipe(origin=origins.recipe(Path(source).stem), recipe=recipe.as_data())]


def _front_recipes(folder: StudyFolder) -> Iterator[SeedRecipe]:
    study = read_study(latest_study(folder))
    for trial in front(study):
        if not is_single_model(trial.origin):
            origin = origins.study(study.name, trial.number)
            yield SeedRecipe(origin=origin, recipe=dict(trial.recipe))
