"""What a budget costs in time is reckoned from a trial that was measured."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from evomerge.cli.main import app
from evomerge.evaluation.scores import ItemScore, Scores
from evomerge.runs.pace import Pace, scoring_seconds


def test_every_task_counts_by_its_own_items_and_what_is_beside_the_model_in_proportion() -> None:
    long = [ItemScore("long", i, metric, 1.0, seconds=0.5) for i in (0, 1) for metric in "ab"]
    short = [ItemScore("short", i, "a", 1.0, seconds=0.1) for i in range(10)]
    scores = Scores({}, (*long, *short), seconds=4.0)  # 2 s of them in the model
    # 6 long items take 3 s in the model, 30 short ones 3 s; as much again beside it
    assert scoring_seconds(scores, {"long": 6, "short": 30}) == pytest.approx(12.0)


def test_workers_share_the_trials() -> None:
    assert Pace(1.5, 4).seconds(100) == 37.5


def test_check_measures_the_time_on_demand() -> None:
    wanted = ["--set", "execution.executor=inline", "--set", "budget.trials=7", "--time"]
    done = CliRunner().invoke(app, ["check", "quickstart", *wanted])
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("time  "))
    found = re.search(r"([\d.e+-]+) s per trial, measured; 7 trials on 1 workers take", line)
    assert found is not None
    assert float(found[1]) > 0
