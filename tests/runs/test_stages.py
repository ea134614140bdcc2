"""Two short stages on the embedded models: chained, interrupted anywhere, resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from evomerge.analysis.picking import pick
from evomerge.analysis.winners import stage_winners
from evomerge.cli.main import app
from evomerge.config.load import experiment_digest, load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, StudyError
from evomerge.evaluation.gates import Gates
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.files import load_recipe
from evomerge.runs.events import Events
from evomerge.runs.reading import latest_study, read_study, stage_studies
from evomerge.runs.stages import (
    change_run,
    continue_run,
    load_stages,
)
from evomerge.runs.stored import read_experiment
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord
from tests.runs.creating import create_run

ZOO = Presets().names("evaluators")["zoo"]
EVOMERGE = [sys.executable, "-m", "evomerge.cli.main"]


def write(folder: Path, **changes: object) -> Path:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "facts": "zoo:facts"}},
        "stages": [
            {"search_space": "layerwise_task_arithmetic", "budget": {"trials": 7}, "keep": 2},
            {"search_space": "global_linear", "sampler": "random"},
        ],
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
            {"cost": "distance"},
        ],
        "sampler": "tpe",
        "budget": {"trials": 8},
        "execution": {"executor": "inline"},
        "finalists": 1,
        **changes,
    }
    file = folder / "chain.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def create(folder: Path, **changes: object) -> StudyFolder:
    found = StudyFolder(folder / "run")
    create_run(write(folder, **changes), Presets(), [], found)
    return found


def outcome(folder: StudyFolder) -> list[object]:
    return [
        [(t.number, t.state, t.origin, t.values, dict(t.params)) for t in read_study(one).trials]
        for one in stage_studies(folder)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder = create(tmp_path_factory.mktemp("chain"))
    continue_run(folder, Events())
    return folder


def test_winners_of_a_stage_are_experts_and_baselines_of_the_next(finished: StudyFolder) -> None:
    first, second = map(read_study, stage_studies(finished))
    assert (len(first.trials), len(second.trials)) == (7, 8)
    winners = json.loads(finished.stage(1).winners.read_text())["winners"]
    assert list(winners) == ["stage1_0", "stage1_1"]
    parents = ["base", "expert:math", "expert:facts", *(f"winner:{name}" for name in winners)]
    origins = [t.origin for t in second.trials]
    assert origins[: len(parents) + 1] == [*parents, "uniform"]
    by_number = {t.number: t for t in first.trials}
    for name, number in winners.items():
        again = next(t for t in second.trials if t.origin == f"winner:{name}")
        assert again.values == by_number[number].values  # what was scored is what was handed on


def test_only_the_last_stage_has_finals_and_is_what_is_read(finished: StudyFolder) -> None:
    first, second = stage_studies(finished)
    assert not read_study(first).finals
    assert read_study(second).finals
    assert latest_study(finished).root == second.root
    assert read_study(second).name == "run, stage 2"


def test_winners_are_plain_checkpoints(finished: StudyFolder) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = finished.stage(1).models / "stage1_0"
    assert AutoModelForCausalLM.from_pretrained(model).num_parameters() > 0
    assert AutoTokenizer.from_pretrained(model)
    assert (model / "recipe.yaml").is_file()


class _Stop:
    """Interrupts a run after so many finished trials, or when a phase begins."""

    def __init__(self, after: int | None = None, phase: str | None = None) -> None:
        self._left, self._phase = after, phase

    def told(self, trial: TrialRecord) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                raise KeyboardInterrupt

    def phase(self, text: str) -> None:
        if self._phase is not None and self._phase in text:
            raise KeyboardInterrupt


def test_interrupted_moved_and_resumed_equals_uninterrupted(
    tmp_path: Path, finished: StudyFolder
) -> None:
    folder = create(tmp_path)
    stops = _Stop(after=3), _Stop(phase="winners"), _Stop(after=2), _Stop(phase="finals")
    for i, stop in enumerate(stops):
        with pytest.raises(KeyboardInterrupt):
            continue_run(folder, Events(stop.phase, told=stop.told))
        folder = StudyFolder(folder.root.rename(tmp_path / f"moved{i}"))
    continue_run(folder, Events())
    assert outcome(folder) == outcome(finished)
    ours, theirs = (
        one.stage(1).models / "stage1_0" / "model.safetensors" for one in (folder, finished)
    )
    assert ours.read_bytes() == theirs.read_bytes()
    again = folder.root.rename(tmp_path / "again")
    for command in (["report"], ["export", "--pick", "chosen", "--out", str(tmp_path / "model")]):
        done = CliRunner().invoke(app, [command[0], str(again), *command[1:]])
        assert done.exit_code == 0, done.output
    recipe = read_study(latest_study(StudyFolder(again))).trials[-1].recipe
    winner = again / "stages" / "1" / "models" / "stage1_0"
    assert recipe["experts"]["stage1_0"] == str(winner.resolve())  # type: ignore[index]
    assert str(tmp_path) not in StudyFolder(again).stage(2).experiment.read_text()


def test_killed_while_winners_are_written_and_resumed(
    tmp_path: Path, finished: StudyFolder
) -> None:
    """A real kill -9, as soon as the first stage has handed on something."""
    folder = create(tmp_path)
    winner = folder.stage(1).models / "stage1_0"
    with subprocess.Popen([*EVOMERGE, "resume", str(folder.root)], stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 120
        while not winner.is_dir() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        _, said = run.communicate()
    assert winner.is_dir(), said.decode()
    continue_run(folder, Events())
    assert outcome(folder) == outcome(finished)


def test_a_finished_run_does_nothing(finished: StudyFolder) -> None:
    before = outcome(finished)
    stamp = finished.stage(1).winners.stat().st_mtime_ns
    continue_run(finished, Events(told=lambda trial: pytest.fail("a trial was run")))
    assert outcome(finished) == before
    assert finished.stage(1).winners.stat().st_mtime_ns == stamp


def test_a_winner_of_an_earlier_stage_may_be_chosen_and_an_expert_may_not(tmp_path: Path) -> None:
    stages = [
        {"search_space": "layerwise_task_arithmetic", "budget": {"trials": 8}, "keep": 2},
        {"search_space": "global_linear", "budget": {"trials": 5}},  # no room for a new merge
    ]
    study = continue_run(create(tmp_path, stages=stages, sampler="random"), Events())
    origins = ["base", "expert:math", "expert:facts", "winner:stage1_0", "winner:stage1_1"]
    assert [t.origin for t in study.trials] == origins
    (chosen,) = {f.origin for f in study.finals if f.chosen}
    assert chosen.startswith("winner:stage1_")
    assert pick(study, "knee").origin.startswith("winner:stage1_")
    assert pick(study, "chosen").origin == chosen
    with pytest.raises(StudyError, match="expected 1 complete merges"):
        stage_winners(study, 1, "knee")  # experts of the next stage already


def test_a_recipe_that_was_handed_on_moves_with_its_run(tmp_path: Path) -> None:
    stages = [{"search_space": "global_linear", "budget": {"trials": 7}}] * 3
    folder = create(tmp_path, stages=stages, sampler="random", finalists=0)
    with pytest.raises(KeyboardInterrupt):
        continue_run(folder, Events(told=_Stop(after=15).told))
    moved = StudyFolder(folder.root.rename(tmp_path / "moved"))
    handed_on = moved.stage(2).models / "stage2_0"
    write_checkpoint(load_recipe(handed_on / "recipe.yaml"), tmp_path / "model")
    file = "model.safetensors"
    assert (tmp_path / "model" / file).read_bytes() == (handed_on / file).read_bytes()


def test_a_budget_is_for_the_stages_that_are_not_done(tmp_path: Path) -> None:
    stages = [{"search_space": "global_linear"}, {"search_space": "global_linear"}]
    folder = create(tmp_path, stages=stages, sampler="random", finalists=0, budget={"trials": 5})
    with pytest.raises(KeyboardInterrupt):
        continue_run(folder, Events(told=_Stop(after=7).told))
    change_run(folder, ["budget.trials=8"])
    continue_run(folder, Events())
    assert [len(read_study(one).trials) for one in stage_studies(folder)] == [5, 8]
    change_run(folder, ["budget.trials=9"])
    assert read_experiment(latest_study(folder)).budget.trials == 9


def test_a_budget_that_no_stage_follows_is_refused(tmp_path: Path) -> None:
    stages = [{"search_space": "global_linear"}, {"search_space": "global_linear"}]
    stages[1]["budget"] = {"trials": 6}  # type: ignore[assignment]
    folder = create(tmp_path, stages=stages, sampler="random", finalists=0, budget={"trials": 5})
    with pytest.raises(KeyboardInterrupt):
        continue_run(folder, Events(told=_Stop(after=6).told))
    with pytest.raises(StudyError, match=r"stage 1 is done, stage 2 has a budget of its own; name"):
        change_run(folder, ["budget.trials=9"])
    change_run(folder, ["stages.1.budget.trials=7"])
    own = [{"search_space": "global_linear", "budget": {"trials": 5}}]
    with pytest.raises(StudyError, match=r"got none: stage 1 has a budget of its own; name"):
        create_run(
            write(tmp_path, stages=own), Presets(), ["budget.trials=9"], StudyFolder(tmp_path / "n")
        )


def test_a_run_is_not_changed_while_a_driver_runs_it(tmp_path: Path) -> None:
    folder = create(tmp_path)
    before = folder.experiment.read_text()
    other = StudyFolder(folder.root)
    with other.lock(), pytest.raises(StudyError, match="another evomerge process"):
        change_run(folder, ["budget.trials=20"])
    assert folder.experiment.read_text() == before


def test_budgets_may_grow_except_where_winners_are_in_use(tmp_path: Path) -> None:
    stages = [
        {"search_space": "global_linear", "budget": {"trials": 5}},
        {"search_space": "global_linear", "budget": {"trials": 6}},
    ]
    folder = create(tmp_path, stages=stages, sampler="random", finalists=0)
    with pytest.raises(KeyboardInterrupt):
        continue_run(folder, Events(told=_Stop(after=4).told))
    change_run(folder, ["stages.0.budget.trials=6"])
    continue_run(folder, Events())
    change_run(folder, ["stages.1.budget.trials=8"])
    continue_run(folder, Events())
    assert [len(read_study(one).trials) for one in stage_studies(folder)] == [6, 8]
    with pytest.raises(StudyError, match="run, stage 1 is done and its winners are in use"):
        change_run(folder, ["stages.0.budget.trials=9"])
    with pytest.raises(StudyError, match="start a new study"):
        change_run(folder, ["stages.1.keep=3"])
    with pytest.raises(StudyError, match="at least the 8 trials"):
        change_run(folder, ["stages.1.budget.trials=7"])


def test_the_command_line_shows_the_last_stage(finished: StudyFolder, tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    status = json.loads(run("status", finished.root, "--json"))
    assert status["trials"]["complete"] == 8
    assert [stage["trials"]["complete"] for stage in status["stages"]] == [7, 8]
    assert "run, stage 1" in run("status", finished.root)
    assert json.loads(run("front", finished.root, "--json"))["trials"]
    run("report", finished.root)
    assert "run, stage 2" in finished.report.read_text(encoding="utf-8")
    exported = run("export", finished.root, "--pick", "trial:6", "--out", tmp_path / "model")
    assert "trial 6" in exported
    check = run("check", write(tmp_path))
    assert "stage 2" in check
    assert "stage1_0" in check


def test_faults_of_every_stage_are_reported_at_once(tmp_path: Path) -> None:
    stages = [
        {"search_space": {"method": "no_such", "genes": {}}},
        {"search_space": {"kind": "dataflow"}},
        {"search_space": "global_linear", "sampler": "no_such_sampler"},
    ]
    experts = {"stage1_0": "zoo:math"}
    path = write(tmp_path, stages=stages, models={"base": "zoo:base", "experts": experts})
    with pytest.raises(ConfigError) as error:
        load_stages(load_experiment(path, Presets()))
    text = str(error.value)
    assert "stages[0].search_space" in text
    assert "no_such" in text
    assert "stages[1].search_space: models of a dataflow space have other layers" in text
    assert "stages[2].sampler.name: no sampler 'no_such_sampler'" in text
    assert "models.experts.stage1_0: stage1_0 is the name of a stage's winner" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_space": "global_linear"}, "expected either search_space or stages"),
        ({"stages": []}, "expected either search_space or stages"),
        ({"storage": "postgresql://x"}, "expected no storage beside stages"),
    ],
)
def test_a_chain_that_cannot_be_is_explained(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(write(tmp_path, **changes), Presets())


def test_every_stage_has_the_gates_races_and_split_rules_of_the_experiment(tmp_path: Path) -> None:
    keys = {"gates": {"runaway": 0.5}, "race": {"rungs": [0.5]}, "allow_test_split": True}
    file = write(tmp_path, **keys)
    experiment = load_experiment(file, Presets())
    for loaded in load_stages(experiment):
        assert loaded.worker.gates == Gates(runaway=0.5)
        assert loaded.worker.rungs == (0.5,)
        assert loaded.experiment.race == experiment.race
        assert all(suite.allow_test_split for suite in loaded.suites)
    file = write(tmp_path, **keys, seed=0)
    assert experiment_digest(load_experiment(file, Presets())) == experiment_digest(experiment)
    for key in keys:
        file = write(tmp_path, **{k: v for k, v in keys.items() if k != key})
        assert experiment_digest(load_experiment(file, Presets())) != experiment_digest(experiment)
