"""Searches over methods with data, on the embedded models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.api.merging import merge
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.recipe.files import stored_recipe
from evomerge.runs import observed
from evomerge.runs.cost import experiment_facts
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import continue_study
from evomerge.runs.stages import start_run
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
CONTENT: dict[str, Any] = {
    "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
    "search_space": {
        "method": {"choice": ["regmean", "fisher", "task_arithmetic"]},
        "genes": {"coefficient": {"range": [0, 1]}},
    },
    "evaluators": [{"tasks": ["zoo_math", "zoo_list"], "include_path": str(TASKS), "limit": 6}],
    "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
    "prompts": {"limit": 8},
    "sampler": "nsga2",
    "budget": {"trials": 9},
    "execution": {"executor": "inline"},
    "finalists": 0,
}


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, **changes}))
    return file


def checked(folder: Path, **changes: Any) -> Loaded:
    return Loaded.of(load_experiment(written(folder, **changes), Presets()))


class StoppedError(Exception):
    """Ends a driver where a user would."""


def stop(trial: TrialRecord) -> None:
    if trial.number == 5:
        raise StoppedError


def test_a_search_over_methods_with_data_runs_resumes_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    folder = StudyFolder(tmp_path / "study")
    with pytest.raises(StoppedError):
        start_run(written(tmp_path), Presets(), [], folder, Events(told=stop))
    study = continue_study(folder, Events())
    assert [trial.state for trial in study.trials] == ["complete"] * 9
    recipes = [stored_recipe(trial.recipe, trial.number) for trial in study.trials]
    methods = {recipe.rules[0].method for recipe in recipes}
    assert {"regmean", "fisher"} & methods
    prompts = [json.loads(line) for line in folder.prompts.read_text().splitlines()]
    assert len(prompts) == 8  # of both tasks in turn, with the answers
    assert all(one["prompt"] and one["answer"] for one in prompts)
    for recipe in recipes:
        has_data = recipe.rules[0].method in ("regmean", "fisher")
        assert (recipe.prompts is not None) == has_data
        if recipe.prompts is not None:
            assert recipe.prompts.file == str(folder.prompts)
            assert recipe.prompts.digest
    with_data = next(recipe for recipe in recipes if recipe.prompts is not None)
    assert merge(with_data).num_parameters() > 0


def test_check_says_what_observing_takes(tmp_path: Path) -> None:
    facts = dict(experiment_facts(checked(tmp_path)))
    assert facts["observed"].startswith("fisher, input_gram of each expert on 8 prompts, once: ")
    plain = checked(tmp_path, search_space={**CONTENT["search_space"], "method": "task_arithmetic"})
    assert "observed" not in dict(experiment_facts(plain))


def test_prompts_are_of_searched_items_alone(tmp_path: Path) -> None:
    loaded = checked(tmp_path)
    folder = StudyFolder(tmp_path / "study")
    folder.make()
    kept = observed.with_prompts(loaded, folder).prompts
    assert kept.file == str(folder.prompts)
    lines = [json.loads(line)["prompt"] for line in folder.prompts.read_text().splitlines()]
    suites = {split: loaded.tasks.prompted(split) for split in ("search", "validation", "test")}
    asked = {
        split: {r.args[0] for s in several for t in s.tasks for i in t.items for r in i.requests}
        for split, several in suites.items()
    }
    assert set(lines) <= asked["search"]
    assert not set(lines) & (asked["validation"] | asked["test"]) - asked["search"]


def test_a_search_without_such_methods_keeps_no_prompts(tmp_path: Path) -> None:
    loaded = checked(
        tmp_path, search_space={**CONTENT["search_space"], "method": "task_arithmetic"}
    )
    folder = StudyFolder(tmp_path / "study")
    folder.make()
    assert observed.with_prompts(loaded, folder) == loaded.experiment
    assert not folder.prompts.exists()
    assert loaded.space.recipe(loaded.space.defaults).prompts is None


def test_check_names_what_stands_in_the_way_of_observing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content, expected in {
        "": "at least one prompt",
        '{"answer": "x"}\n': "line 1",
        '{"prompt": "x", "expert": "code"}\n': "list, math",
    }.items():
        (tmp_path / "own.jsonl").write_text(content)
        with pytest.raises(ConfigError, match=expected):
            checked(tmp_path, prompts={"file": "own.jsonl"})
    with pytest.raises(ConfigError, match=r"absent\.jsonl"):
        checked(tmp_path, prompts={"file": "absent.jsonl"})
    monkeypatch.setattr(observed, "machine_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match="of memory"):
        checked(tmp_path)
    remote = {"executor": "ray", "ray_address": "ray://elsewhere:1"}
    with pytest.raises(ConfigError, match="this machine"):
        checked(tmp_path, execution=remote)
