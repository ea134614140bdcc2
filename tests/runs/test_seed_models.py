"""Seeds of an experiment, on the embedded models: read, recorded, run and shown."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import yaml

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import continue_study
from evomerge.runs.stored import read_experiment
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord
from tests.runs.creating import create_run

ZOO = Presets().names("evaluators")["zoo"]
RECIPE = {
    "base": "zoo:base",
    "experts": {"f": "zoo:facts", "m": "zoo:math"},
    "method": "task_arithmetic",
    "parameters": {"coefficient": {"f": 0.25, "m": 0.75}},
}
MERGEKIT = {
    "merge_method": "ties",
    "base_model": "zoo:base",
    "models": [
        {"model": "zoo:math", "parameters": {"weight": 0.5, "density": 0.5}},
        {"model": "zoo:facts", "parameters": {"weight": 0.5, "density": 0.5}},
    ],
    "dtype": "bfloat16",
}


def write(folder: Path, **changes: object) -> Path:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "facts": "zoo:facts"}},
        "search_space": "global_linear",
        "evaluators": [
            {
                "tasks": ["zoo_math", "zoo_facts"],
                "include_path": str(ZOO.parent / "tasks"),
                "splits": {"search": "search", "validation": "validation", "test": "test"},
                "limit": 8,
            }
        ],
        "objectives": [
            {"task": "zoo_math", "metric": "exact_match"},
            {"task": "zoo_facts", "metric": "acc"},
        ],
        "sampler": "random",
        "budget": {"trials": 8},
        "execution": {"executor": "inline"},
        "finalists": 1,
        **changes,
    }
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def ran(folder: Path, name: str, **changes: object) -> tuple[StudyFolder, StudyRecord]:
    study = StudyFolder(folder / name)
    create_run(write(folder, **changes), Presets(), [], study)
    return study, continue_study(study, Events())


def assembled(folder: Path, **changes: object) -> Loaded:
    path = write(folder, **changes)
    return Loaded.of(load_experiment(path, Presets()))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, StudyRecord]:
    return ran(tmp_path_factory.mktemp("seeds"), "earlier")


@pytest.fixture(scope="module")
def warm(
    earlier: tuple[StudyFolder, StudyRecord], tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyFolder, StudyRecord]:
    """A study that starts from everything, whose sources are gone when it runs."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "mine.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "theirs.yaml").write_text(yaml.safe_dump(MERGEKIT))
    shutil.copytree(earlier[0].root, folder / "copied")
    seeds = {
        "task_arithmetic": [0.3],
        "recipes": ["mine.yaml", "theirs.yaml"],
        "studies": ["copied"],
    }
    study = StudyFolder(folder / "warm")
    create_run(write(folder, seeds=seeds, budget={"trials": 20}), Presets(), [], study)
    shutil.rmtree(folder / "copied")
    (folder / "mine.yaml").unlink()
    return study, continue_study(study, Events())


def test_the_base_and_experts_and_their_average_run_first(
    earlier: tuple[StudyFolder, StudyRecord],
) -> None:
    origins = [trial.origin for trial in earlier[1].trials]
    assert origins == ["base", "expert:math", "expert:facts", "uniform", *["search"] * 4]
    assert "seeds" not in yaml.safe_load(earlier[0].experiment.read_text())


def test_recipes_and_earlier_fronts_run_and_are_recorded(
    earlier: tuple[StudyFolder, StudyRecord], warm: tuple[StudyFolder, StudyRecord]
) -> None:
    by_origin = {trial.origin: trial for trial in warm[1].trials}
    recorded = read_experiment(warm[0]).seeds
    assert recorded.studies == []
    from_study = [o for o in by_origin if o.startswith("study:copied#")]
    assert from_study
    for origin in from_study:
        before = earlier[1].trials[int(origin.partition("#")[2])]
        assert by_origin[origin].values == before.values
        assert by_origin[origin].params == before.params
    assert by_origin["task_arithmetic:0.3"].params == {
        "coefficient.math": 0.3,
        "coefficient.facts": 0.3,
    }
    assert by_origin["recipe:mine"].params == {"coefficient.math": 0.75, "coefficient.facts": 0.25}
    assert by_origin["recipe:theirs"].params == {}  # the space has no ties
    assert all(trial.state == "complete" for trial in warm[1].trials)


def test_only_models_as_they_are_and_the_average_are_baselines_of_the_finals(
    warm: tuple[StudyFolder, StudyRecord],
) -> None:
    unpicked = {final.origin for final in warm[1].finals if not final.chosen}
    assert unpicked <= {"base", "expert:math", "expert:facts", "uniform"}
    assert any(final.chosen for final in warm[1].finals)


def test_seeds_can_be_switched_off(tmp_path: Path) -> None:
    off = {"parents": False, "averages": False}
    assert assembled(tmp_path, seeds=off).seeds == ()
    bound = {"task": "zoo_math", "metric": "exact_match", "at_least": "base - 0.1"}
    with pytest.raises(ConfigError, match="baseline out of uniform, got 'base'"):
        assembled(tmp_path, seeds={"parents": False}, constraints=[bound])


def test_every_seed_that_does_not_fit_is_reported_at_once(tmp_path: Path) -> None:
    other = {**RECIPE, "experts": {"l": "zoo:list"}, "parameters": {"coefficient": 0.5}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**RECIPE, "method": "tise"}))
    seeds = {"recipes": ["other.yaml", "bad.yaml", "none.yaml"], "studies": ["nowhere"]}
    with pytest.raises(ConfigError) as error:
        assembled(tmp_path, seeds=seeds)
    text = str(error.value)
    assert "did you mean 'ties'" in text
    assert "none.yaml, found none" in text
    assert "expected a study folder" in text
    assert "recipe:other: expected a recipe over exactly the experts zoo:math, zoo:facts" in text


def test_seeds_that_no_worker_makes_are_refused_before_the_search(tmp_path: Path) -> None:
    models = {key: RECIPE[key] for key in ("base", "experts")}
    mix = {"by": "logits", "weights": {"f": 1.0, "m": 1.0}}
    seeds = {
        "together": {**models, "rules": [], "ensemble": mix},
        "longer": {**RECIPE, "path": [{"source": "merged", "layers": [0, 6]}]},
    }
    for name, recipe in seeds.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError) as error:
        assembled(
            tmp_path,
            seeds={"recipes": [f"{name}.yaml" for name in seeds]},
            objectives=[{"task": "zoo_math", "metric": "exact_match"}, {"cost": "distance"}],
            engine={"quantize": "int8"},
            execution={"executor": "inline", "gpus_per_worker": 2},
        )
    lines = [line for line in str(error.value).splitlines() if "torchao" not in line]
    paths = "seeds with data-flow paths (recipe:longer)"
    assert lines == [
        "seeds.recipes: expected merges, which candidates of this space are, got ensembles "
        "(recipe:together); leave them out, or search_space: {kind: ensemble}",
        f"objectives[1].cost: expected no distance of {paths}, whose layers match no reference's; "
        "use the cost kl",
        f"execution.gpus_per_worker: expected at most 1 for {paths}, whose layers are not spread, "
        "got 2",
        f"engine.quantize: expected nothing for {paths}, whose layers are not quantized, got int8; "
        "leave it out",
    ]


def test_coefficients_of_seeds_are_checked_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        assembled(tmp_path, seeds={"task_arithmetic": [0.5, 1e9, math.nan]})
    assert str(error.value).splitlines() == [
        "seeds.task_arithmetic[1]: expected a number in [-10, 10], got 1e+09",
        "seeds.task_arithmetic[2]: expected a number in [-10, 10], got nan",
    ]


def test_a_large_coefficient_in_range_is_a_seed(tmp_path: Path) -> None:
    """As shares times a scale it would be out of range."""
    found = assembled(tmp_path, seeds={"task_arithmetic": [6.0]}).seeds
    assert found[-1].origin == "task_arithmetic:6"


def test_layers_are_grouped_by_importance_when_a_study_is_made(tmp_path: Path) -> None:
    space = {
        "method": "task_arithmetic",
        "genes": {"coefficient": {}},
        "depth": {"importance": 2},
    }
    study = StudyFolder(tmp_path / "study")
    create_run(write(tmp_path, search_space=space), Presets(), [], study)
    recorded = read_experiment(study).search_space
    assert isinstance(recorded, dict)
    starts = recorded["depth"]["boundaries"]
    assert starts[0] == 0
    assert len(starts) == 2
    assert 0 < starts[1] < 6
    with pytest.raises(ConfigError, match="importance: expected 1 to 6"):
        assembled(tmp_path, search_space={**space, "depth": {"importance": 9}})
