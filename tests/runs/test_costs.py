"""Costs and constraints: what ``check`` finds, and a search with both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.analysis.front import front
from evomerge.analysis.report import write_report
from evomerge.cli.main import app
from evomerge.config.experiment import Experiment
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, StudyError
from evomerge.evaluation.suite import Suite
from evomerge.execution.inline import InlineExecutor
from evomerge.execution.protocol import Failed, Outcome
from evomerge.export.model import export_model
from evomerge.runs import run
from evomerge.runs.cost import experiment_facts
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import continue_study
from evomerge.study.folder import StudyFolder
from tests.runs.creating import create_run

ZOO = Presets().names("evaluators")["zoo"]


def write(folder: Path, **changes: object) -> Path:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": [
            {"tasks": ["zoo_math"], "include_path": str(ZOO.parent / "tasks"), "limit": 8}
        ],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
        "budget": {"trials": 8},
        "execution": {"executor": "inline"},
        "finalists": 0,
        **changes,
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def load(folder: Path, **changes: object) -> Experiment:
    return load_experiment(write(folder, **changes), Presets())


def test_wrong_costs_are_all_reported_at_once(tmp_path: Path) -> None:
    objectives = [{"cost": "hop"}, {"cost": "kl", "reference": "mth"}, {"cost": "hops"}]
    with pytest.raises(ConfigError) as error:
        Loaded.of(load(tmp_path, objectives=objectives))
    hop, mth = map(str, error.value.faults)
    assert "objectives[0].cost: expected a cost out of parameters, hops" in hop
    assert "did you mean 'hops'" in hop
    assert "objectives[1].cost: expected a reference out of base, math, list, got 'mth'" in mth


@pytest.mark.parametrize("cost", ["output_tokens", "truncated"])
def test_answer_lengths_need_a_task_with_answers(tmp_path: Path, cost: str) -> None:
    facts = {"tasks": ["zoo_facts"], "include_path": str(ZOO.parent / "tasks"), "limit": 4}
    with pytest.raises(ConfigError, match=f"cost: expected a task that generates text for {cost}"):
        Loaded.of(load(tmp_path, evaluators=[facts], objectives=[{"cost": cost}]))


def test_check_says_what_the_costs_are(tmp_path: Path) -> None:
    objectives = [{"task": "zoo_math", "metric": "exact_match"}, {"cost": "kl"}]
    facts = dict(experiment_facts(Loaded.of(load(tmp_path, objectives=objectives))))
    assert (
        facts["costs"]
        == "kl (mean KL(reference || candidate) per token, in nats, on a sample of the prompts)"
    )
    assert "minimize kl" in facts["objectives"]


def test_a_search_trades_a_score_against_a_distance(tmp_path: Path) -> None:
    objectives = [
        {"task": "zoo_math", "metric": "exact_match"},
        {"cost": "distance"},
        {"cost": "output_tokens"},
    ]
    limits = [{"cost": "truncated", "at_most": 0.5}]
    path = write(tmp_path, objectives=objectives, constraints=limits, finalists=1)
    create_run(path, Presets(), [], folder := StudyFolder(tmp_path / "run"))
    study = continue_study(folder, Events())
    assert [o.name for o in study.objectives] == ["zoo_math", "distance", "output_tokens"]
    base = study.trials[0]
    assert base.values[1] == 0
    assert {t.violations for t in study.trials} == {(-1.0,)}  # answers of the zoo come to an end
    assert base in front(study)  # nothing is nearer to the base than itself
    assert all(t.values[1] > 0 for t in study.trials[1:3])
    assert {f.split for f in study.finals} == {"validation", "test"}
    report = write_report(study, tmp_path / "report.html", inline_js=False)
    assert "output_tokens" in report.read_text()
    suite = Suite("zoo", ("zoo_math",), ZOO.parent / "tasks", limit=8)
    rescored = export_model(study, study.trials[-1], tmp_path / "out", [suite])
    assert rescored.objectives == ("zoo_math",)
    assert rescored.equal


def test_wrong_constraints_are_all_reported_at_once(tmp_path: Path) -> None:
    wrong = [
        {"task": "zoo_math", "metric": "exact_match", "at_least": "base-0.01"},
        {"cost": "hops"},
    ]
    with pytest.raises(ConfigError) as error:
        load(tmp_path, constraints=wrong)
    grammar, bound = map(str, error.value.faults)
    assert "constraints[0].at_least: expected a number, or base, uniform" in grammar
    assert "constraints[1]: expected at_least or at_most, got neither" in bound
    unknown = [
        {"task": "zoo_mth", "metric": "exact_match", "at_least": 0.5},
        {"cost": "hop", "at_most": "expert:mth * 2"},
    ]
    with pytest.raises(ConfigError) as error:
        Loaded.of(load(tmp_path, constraints=unknown))
    task, cost, baseline = map(str, error.value.faults)
    assert "constraints[0].task: expected a task out of" in task
    assert "did you mean 'hops'?" in cost
    assert (
        "constraints[1].at_most: expected a baseline out of base, expert:math, expert:list, uniform"
        in baseline
    )


class _FailsAt(InlineExecutor):
    """A real worker whose jobs of some trials fail."""

    def __init__(self, trials: set[int]) -> None:
        super().__init__()
        self._trials = trials

    def next_outcome(self) -> Outcome:
        outcome = super().next_outcome()
        is_it = outcome.job.trial in self._trials
        return Failed(outcome.job, "MemoryError: none left") if is_it else outcome


def test_a_constraint_without_its_baseline_is_said_loudly_until_it_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {"task": "zoo_math", "metric": "exact_match", "at_least": "base + 0.05"}
    path = write(tmp_path, constraints=[limit], finalists=1)
    create_run(path, Presets(), [], folder := StudyFolder(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(run, "start_executor", lambda *_: _FailsAt({0, 4}))
        with pytest.raises(StudyError, match="base was not scored"):
            continue_study(folder, Events())

    def shown(*command: str) -> str:
        return CliRunner().invoke(app, [command[0], str(folder.root), *command[1:]]).stdout

    why = "zoo_math exact_match at least base + 0.05 (base was not scored; trial 4: MemoryError: "
    assert json.loads(shown("status", "--json"))["unenforced"] == [f"{why}none left)"]
    assert json.loads(shown("front", "--json"))["unenforced"] == [f"{why}none left)"]
    assert f"NOT ENFORCED {why}" in shown("status")
    assert f"NOT ENFORCED {why}" in shown("front")
    study = continue_study(folder, Events())
    assert not study.unenforced
    assert [t.state for t in study.trials if t.origin == "base"] == ["failed", "failed", "complete"]
    assert len(study.trials) == 8
    assert all(f.violations for f in study.finals)
    assert "NOT ENFORCED" not in shown("front")


def test_a_budget_must_reach_the_baselines_of_the_constraints(tmp_path: Path) -> None:
    limit = {"task": "zoo_math", "metric": "exact_match", "at_least": "uniform - 0.05"}
    small = load(tmp_path, constraints=[limit], budget={"trials": 3})
    with pytest.raises(ConfigError, match=r"at least 4 trials, to score uniform .*, got 3"):
        Loaded.of(small)


def test_a_search_keeps_its_constraints(tmp_path: Path) -> None:
    constraints = [
        {"task": "zoo_math", "metric": "exact_match", "at_least": "base + 0.05"},
        {"cost": "distance", "at_most": "expert:math * 1.0"},
    ]
    path = write(tmp_path, constraints=constraints, finalists=1, budget={"trials": 12})
    create_run(path, Presets(), [], folder := StudyFolder(tmp_path / "run"))
    facts = dict(experiment_facts(Loaded.of(load_experiment(path, Presets()))))
    assert facts["constraints"] == (
        "zoo_math exact_match at least base + 0.05, distance at most expert:math * 1.0"
    )
    assert facts["costs"].startswith("distance (")
    study = continue_study(folder, Events())
    base, expert = study.trials[0], study.trials[1]
    assert not base.is_feasible
    assert expert.violations[1] == 0
    for t in study.trials:
        assert (t.violations[0] <= 0) == (t.values[0] >= base.values[0] + 0.05 - 1e-12)
    assert all(t.is_feasible for t in front(study))
