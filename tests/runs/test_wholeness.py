"""Studies that have lost a part: named, refused, never begun again without a word."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evomerge.api.study import Study
from evomerge.config.presets import Presets
from evomerge.errors import StudyError
from evomerge.runs.events import Events
from evomerge.runs.reading import read_study
from evomerge.runs.run import continue_study
from evomerge.study.folder import StudyFolder
from tests.runs.creating import create_run

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with finals and a report, beside its experiment file."""
    root = tmp_path_factory.mktemp("done")
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": [
            {
                "tasks": ["zoo_math"],
                "include_path": str(TASKS),
                "limit": 2,
                "splits": {"search": "search", "validation": "validation", "test": "test"},
            }
        ],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
        "sampler": "random",
        "budget": {"trials": 5},
        "execution": {"executor": "inline"},
        "finalists": 1,
    }
    (root / "e.yaml").write_text(yaml.safe_dump(content))
    folder = StudyFolder(root / "study")
    create_run(root / "e.yaml", Presets(), [], folder)
    continue_study(folder, Events())
    Study(folder).report()
    return root


@pytest.fixture
def study(done: Path, tmp_path: Path) -> StudyFolder:
    shutil.copytree(done, tmp_path / "here")
    return StudyFolder(tmp_path / "here" / "study")


def begin_again(study: StudyFolder) -> None:
    create_run(study.root.parent / "e.yaml", Presets(), [], study)


def report(study: StudyFolder) -> None:
    Study(study).report()


def resume(study: StudyFolder) -> None:
    continue_study(study, Events())


def emptied(study: StudyFolder) -> None:
    study.journal.write_bytes(b"")


def deleted(study: StudyFolder) -> None:
    study.journal.unlink()


def with_finals_only(study: StudyFolder) -> None:
    shutil.rmtree(study.items)
    study.journal.unlink()


@pytest.mark.parametrize("command", [resume, read_study, report, begin_again])
@pytest.mark.parametrize("lose", [emptied, deleted, with_finals_only])
def test_a_study_whose_trials_are_gone_is_refused_and_left_alone(
    study: StudyFolder,
    command: Callable[[StudyFolder], object],
    lose: Callable[[StudyFolder], None],
) -> None:
    lose(study)
    before = {p: p.read_bytes() for p in study.root.rglob("*") if p.is_file()}
    with pytest.raises(StudyError, match=rf"found none in {study.journal}; restore it"):
        command(study)
    after = {p: p.read_bytes() for p in study.root.rglob("*") if p.is_file()}
    assert after == before


def test_a_journal_that_has_lost_its_end_is_refused(study: StudyFolder) -> None:
    lines = study.journal.read_text().splitlines(keepends=True)
    asked = [i for i, line in enumerate(lines) if '"trial":4,' in line]
    study.journal.write_text("".join(lines[: asked[0]]))
    with pytest.raises(StudyError, match=rf"holds the scores of trial 4, which {study.journal}"):
        resume(study)


def test_item_scores_that_are_gone_are_missed_before_a_study_is_continued(
    study: StudyFolder,
) -> None:
    (study.items / "000002.search.parquet").unlink()
    with pytest.raises(StudyError, match=rf"item scores of trial 2 in {study.items}, found none"):
        resume(study)
    shutil.rmtree(study.items)
    with pytest.raises(StudyError, match="item scores of trial 0 and 4 more"):
        resume(study)
    report(study)  # what does not need them goes on


def test_finals_that_are_damaged_are_run_again(study: StudyFolder) -> None:
    before = read_study(study).finals
    assert before
    study.finals.write_text("[]")
    resume(study)
    assert read_study(study).finals == before


def test_a_report_on_a_study_without_trials_does_not_keep_it_from_starting(
    study: StudyFolder,
) -> None:
    shutil.rmtree(study.items)
    for path in (study.journal, study.finals):
        path.unlink()
    report(study)
    resume(study)
    assert len(read_study(study).trials) == 5
