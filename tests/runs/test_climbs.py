"""Searches along slopes from start to end, on the embedded models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import continue_study
from evomerge.runs.stages import start_run
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord, TrialRecord

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
GENES = {"coefficient": {"range": [0, 1]}}
CONTENT: dict[str, Any] = {
    "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
    "search_space": {"method": "task_arithmetic", "genes": GENES},
    "evaluators": [{"tasks": ["zoo_math", "zoo_list"], "include_path": str(TASKS), "limit": 8}],
    "objectives": [
        {"task": "zoo_math", "metric": "exact_match"},
        {"task": "zoo_list", "metric": "exact_match"},
    ],
    "sampler": {"name": "slopes", "steps": 2, "items": 2, "short": 0},
    "budget": {"trials": 10},
    "execution": {"executor": "inline"},
    "finalists": 0,
}


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, **changes}))
    return file


class StoppedError(Exception):
    """Ends a driver where a user would."""


def stop_at(number: int) -> Events:
    def told(trial: TrialRecord) -> None:
        if trial.number == number:
            raise StoppedError

    return Events(told=told)


def ends(study: StudyRecord) -> list[object]:
    return [
        (t.origin, t.values, dict(t.params), t.evaluations, t.climb_error) for t in study.trials
    ]


def test_a_search_along_slopes_ends_with_its_budget_and_resumes_exactly(tmp_path: Path) -> None:
    whole = start_run(written(tmp_path), Presets(), [], StudyFolder(tmp_path / "whole"), Events())
    with pytest.raises(StoppedError):
        start_run(written(tmp_path), Presets(), [], StudyFolder(tmp_path / "parts"), stop_at(5))
    resumed = continue_study(StudyFolder(tmp_path / "parts"), Events())
    assert ends(resumed) == ends(whole)
    assert 9 < whole.evaluations <= 10
    extra = 3 * 2 * 2 * 2 / 16  # steps, items and objectives, by search items
    climbed = [t for t in whole.trials if t.has_climbed]
    assert climbed
    assert {round(t.evaluations, 6) for t in climbed} == {1 + extra}
    again: list[str] = []
    continue_study(StudyFolder(tmp_path / "whole"), Events(phase=again.append))
    assert "searching" not in again  # it is finished


def test_costs_that_are_smooth_are_climbed_beside_a_score(tmp_path: Path) -> None:
    costs = [{"cost": "distance"}, {"cost": "kl", "reference": "math"}]
    objectives = [CONTENT["objectives"][0], *costs]
    file = written(tmp_path, objectives=objectives, budget={"trials": 9})
    study = start_run(file, Presets(), [], StudyFolder(tmp_path / "run"), Events())
    climbed = [t for t in study.trials if t.has_climbed]
    assert climbed
    assert not any(t.climb_error for t in study.trials)
    # Steps, items, and objectives of which one is a single number, by search items.
    assert climbed[0].evaluations == pytest.approx(1 + 3 * 2 * (2 + 1 + 2) / 16)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"search_space": {"kind": "layer_swap"}},
            "sampler: expected genes with slopes, such as coefficients or scales of hops, "
            "got none: choices, whole numbers and what moves masks have none; name another "
            "sampler, e.g. auto",
        ),
        (
            {"objectives": [{"cost": "hops", "direction": "minimize"}]},
            "sampler: expected an objective with slopes, got none: hops (of the costs "
            "only distance and kl have one); name another sampler, e.g. auto",
        ),
        (
            {
                "objectives": [
                    {"task": "zoo_math", "metric": "exact_match", "direction": "minimize"}
                ]
            },
            "sampler: expected an objective with slopes, got none: zoo_math (to minimize it is to "
            "make it worse, which no loss does); name another sampler, e.g. auto",
        ),
    ],
)
def test_what_cannot_be_climbed_is_said_before_the_run(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    file = written(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        Loaded.of(load_experiment(file, Presets(), []))
    assert [*map(str, error.value.faults)] == [line]
