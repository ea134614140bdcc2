"""Tasks that the search never sees: refused as objectives, scored once at the end, reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from evomerge.analysis.forgetting import forgetting_rows
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.evaluation.store import ItemStore
from evomerge.export.model import export_model
from evomerge.runs.cost import experiment_facts
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.stages import continue_run, load_stages
from evomerge.study.folder import StudyFolder
from tests.runs.creating import create_run

TASKS = str(Presets().names("evaluators")["zoo"].parent / "tasks")
BASE_ACC = ("base", "zoo_facts/acc")
SPLITS = {"search": "search", "validation": "validation", "test": "test"}
SEARCHED = {"tasks": ["zoo_list"], "include_path": TASKS, "splits": SPLITS, "limit": 6}
UNSEEN = {"tasks": ["zoo_facts"], "include_path": TASKS, "report_only": True, "limit": 20}


def write(folder: Path, **changes: object) -> Path:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": [SEARCHED, UNSEEN],
        "objectives": [{"task": "zoo_list", "metric": "exact_match"}, {"cost": "output_tokens"}],
        "sampler": "random",
        "budget": {"trials": 6},
        "execution": {"executor": "inline"},
        **changes,
    }
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def faults(folder: Path, **changes: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Loaded.of(load_experiment(write(folder, **changes), Presets()))
    return list(map(str, caught.value.faults))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"objectives": [{"task": "zoo_facts", "metric": "acc"}]},
            "objectives[0].task: zoo_facts is in a report_only evaluator",
        ),
        (
            {"constraints": [{"task": "zoo_facts", "metric": "acc", "at_least": 0.1}]},
            "constraints[0].task: zoo_facts is in a report_only",
        ),
        (
            {"evaluators": [SEARCHED, {**UNSEEN, "splits": SPLITS}]},
            "evaluators[1].splits: expected test alone in a report_only evaluator",
        ),
        (
            {"evaluators": [SEARCHED, {**UNSEEN, "tasks": ["zoo_list"]}]},
            "task 'zoo_list' is in more than one evaluator",
        ),
        ({"finalists": 0}, "evaluators[1].report_only: expected finalists of at least 1"),
    ],
)
def test_what_the_search_must_not_see_is_guarded(
    changes: dict[str, object], expected: str, tmp_path: Path
) -> None:
    (fault,) = faults(tmp_path, **changes)
    assert expected in fault


def test_check_says_which_tasks_and_how_long_they_take(tmp_path: Path) -> None:
    loaded = Loaded.of(load_experiment(write(tmp_path), Presets()))
    assert [m.name for m in loaded.report_only] == ["zoo_facts/acc", "zoo_facts/acc_norm"]
    text = dict(experiment_facts(loaded))["report only"]
    assert text.startswith("zoo_facts: 20 items, never searched;")
    assert text.endswith("about as long as 17 trials")  # 20 items of 5 models; 6 items per trial


def test_only_the_last_stage_scores_them(tmp_path: Path) -> None:
    stages = [{"search_space": "global_linear"}, {"search_space": "layerwise_task_arithmetic"}]
    file = write(tmp_path, search_space=None, stages=stages)
    content = yaml.safe_load(file.read_text())
    del content["search_space"]
    file.write_text(yaml.safe_dump(content))
    first, last = load_stages(load_experiment(file, Presets()))
    assert [suite.tasks for suite in first.suites] == [("zoo_list",)]
    assert len(last.suites) == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    root = tmp_path_factory.mktemp("report_only")
    folder = StudyFolder(root / "study")
    create_run(write(root), Presets(), [], folder)
    continue_run(folder, Events())
    return folder


def test_they_are_scored_after_the_search_alone(folder: StudyFolder) -> None:
    items = ItemStore(folder.items).read()
    assert set(items.loc[items["task"] == "zoo_facts", "split"]) == {"report_only"}
    unseen = items[items["split"] == "report_only"]
    assert set(unseen["task"]) == {"zoo_facts"}
    study = continue_run(folder, Events())  # finished: reads what is there
    reported = [record.number for record in study.report_only.records]
    assert reported == [f.number for f in study.finals if f.split == "test"]
    assert set(unseen["trial"]) == set(reported)


def test_finals_hold_their_scores(folder: StudyFolder) -> None:
    found = json.loads(folder.finals.read_text())["report_only"]
    assert [m["metric"] for m in found["measures"]] == ["acc", "acc_norm"]
    assert {len(record["values"]) for record in found["records"]} == {2}
    assert sum(record["chosen"] for record in found["records"]) == 1


def test_report_and_card_say_what_was_forgotten(folder: StudyFolder, tmp_path: Path) -> None:
    from evomerge.analysis.report import write_report
    from evomerge.runs.parts import make_suites
    from evomerge.runs.reading import read_study
    from evomerge.runs.stored import read_experiment

    study, items = read_study(folder), ItemStore(folder.items).read()
    page = write_report(study, tmp_path / "report.html", items=items, inline_js=False)
    assert "What was forgotten" in page.read_text()
    rows = forgetting_rows(study, items)
    (merge,) = [row for row in rows if row.chosen and row.measure == "zoo_facts/acc"]
    chosen = next(t for t in study.trials if t.number == merge.number)
    suites = make_suites(read_experiment(folder))
    rescored = export_model(study, chosen, tmp_path / "out", suites, items=items)
    assert rescored.equal
    card = (tmp_path / "out" / "README.md").read_text()
    assert merge.versus_base is not None
    assert f"| zoo_facts/acc | {merge.value:.3f} |" in card
    assert f"{merge.versus_base.value:+.3f} (" in card


def test_the_card_of_any_trial_says_what_it_forgot(folder: StudyFolder, tmp_path: Path) -> None:
    """One that was not in the finals is scored on those tasks when it is exported."""
    from evomerge.runs.parts import make_suites
    from evomerge.runs.reading import read_study
    from evomerge.runs.stored import read_experiment

    study, items = read_study(folder), ItemStore(folder.items).read()
    base = next(t for t in study.trials if t.origin == "base")
    (known,) = [r for r in forgetting_rows(study, items) if (r.origin, r.measure) == BASE_ACC]
    other = replace(base, number=99, origin="search")  # the base again, as a merge nobody scored
    suites = make_suites(read_experiment(folder))
    export_model(study, other, tmp_path / "out", suites, items=items)
    card = (tmp_path / "out" / "README.md").read_text()
    (line,) = [row for row in card.splitlines() if row.startswith("| zoo_facts/acc |")]
    assert line.startswith(f"| zoo_facts/acc | {known.value:.3f} | 100% | +0.000 (-")
    export_model(study, base, tmp_path / "base", suites, items=items)
    card = (tmp_path / "base" / "README.md").read_text()
    assert "This is the base as it is, no merge" in card
    assert "A merge of" not in card
    assert "this merge" not in card
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["tags"] == ["evomerge"]
    assert "base_model_relation" not in header
