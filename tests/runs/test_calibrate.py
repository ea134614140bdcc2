"""Calibration of a real experiment on the embedded models."""

from __future__ import annotations

import json

import pytest
import yaml

from evomerge.cli import main as cli
from evomerge.config.presets import Presets

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("calibrate") / "e.yaml"
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": [
            {
                "tasks": ["zoo_math", "zoo_facts"],
                "include_path": str(TASKS),
                "splits": {"search": "search"},
                "limit": 12,
            }
        ],
        "objectives": [
            {"task": "zoo_math", "metric": "exact_match"},
            {"task": "zoo_facts", "metric": "gold_probability"},
        ],
        "execution": {"executor": "inline"},
        "finalists": 0,
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evomerge", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code


def test_every_objective_is_measured_beside_its_smooth_metrics(experiment, monkeypatch, capsys):
    run(["calibrate", experiment, "--json"], monkeypatch)
    math, facts = json.loads(capsys.readouterr().out)["objectives"]
    origins = [model["origin"] for model in math["measured"]["models"]]
    assert origins == ["base", "expert:math", "expert:list", "uniform"]
    assert math["measured"]["n_items"] == 12
    assert math["measured"]["models"][1]["value"] > 0.8  # the expert of the task
    assert [smooth["metric"] for smooth in math["smooth"]] == ["gold_bpb"]
    assert [smooth["metric"] for smooth in facts["smooth"]] == ["gold_bpb", "brier"]
    assert facts["measured"]["resolution"] > 0
    assert facts["measured"]["items_for_two_points"] is None


def test_the_same_experiment_measures_the_same(experiment, monkeypatch, capsys):
    run(["calibrate", experiment, "--json"], monkeypatch)
    first = capsys.readouterr().out
    run(["calibrate", experiment, "--json"], monkeypatch)
    assert capsys.readouterr().out == first


def test_people_get_tables_and_one_line_of_advice_per_objective(experiment, monkeypatch, capsys):
    run(["calibrate", experiment], monkeypatch)
    out = capsys.readouterr().out
    assert "zoo_math: worth searching on" in out
    assert "expert:list" in out
