"""A first experiment fits what it is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import evomerge
from evomerge.api import starting
from evomerge.api.starting import Wanted, first_experiment
from evomerge.cli.main import app
from evomerge.errors import ConfigError
from evomerge.runs.pace import Pace
from tests.api.conftest import TASKS

EXPERTS = {"math": "zoo:math", "facts": "zoo:facts"}


@pytest.mark.parametrize(
    ("seconds", "hours", "expected"),
    [
        (1.0, 1.0, ("layerwise_task_arithmetic", 300, 200)),  # 7200 trials in the hour
        (36.0, 1.0, ("layerwise_task_arithmetic", 200, 200)),  # 200 in it
        (100.0, 1.0, ("global_linear", 60, 200)),  # 72
        (240.0, 1.0, ("global_linear", 60, 100)),  # 30, or 60 of half the items
        (7200.0, 0.5, ("global_linear", 20, 25)),  # not even one: the least that says anything
    ],
)
def test_space_trials_and_items_follow_the_time_of_a_trial(
    seconds: float,
    hours: float,
    expected: tuple[str, int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(starting, "measure_pace", lambda loaded: Pace(seconds, 2))
    out = tmp_path / "deeper" / "my.yaml"
    out.parent.mkdir()
    wanted = Wanted("zoo:base", EXPERTS, ["zoo_math", "zoo_facts"], TASKS, hours)
    out.write_text(first_experiment(wanted, out))
    found = evomerge.Experiment.load(out)
    plain = evomerge.Experiment.load(out, set=["search_space={}"])
    assert f"search_space: {expected[0]} " in out.read_text()
    assert (found.budget.trials, found.evaluators[0].limit) == expected[1:]
    assert found.budget.wall_clock == hours * 3600
    assert plain.models.experts == EXPERTS
    assert found.evaluators[0].include_path == str(TASKS.resolve())
    metrics = [(o.task, o.metric, o.direction) for o in found.objectives]
    assert metrics == [("zoo_math", "exact_match", "maximize"), ("zoo_facts", "acc", "maximize")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected --base MODEL, got none"),
        (["--base", "zoo:base"], "expected --expert NAME=MODEL, got none"),
        (["--base", "zoo:base", "--expert", "zoo:math"], "as NAME=MODEL, got 'zoo:math'"),
        (["--base", "zoo:base", "--expert", "a=zoo:math"], "expected --tasks NAME,NAME, got none"),
    ],
)
def test_what_is_not_given_is_named(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", str(tmp_path / "my.yaml"), *arguments])
    assert isinstance(done.exception, ConfigError)
    assert expected in str(done.exception)


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("mine")
    done = CliRunner().invoke(app, ["init", str(tmp_path / "my.yaml")])
    assert "expected no file at" in str(done.exception)
