"""A short study made as the long ones are: every command reads its journal once."""

from __future__ import annotations

import os

import pytest

from evomerge.api.study import Study
from evomerge.runs.reading import read_study
from evomerge.runs.stages import change_run
from evomerge.study.folder import StudyFolder
from tests.benchmarks.scale.cost import COMMANDS, counted, run_counted
from tests.benchmarks.scale.make import N_GENES, make_study

N_TRIALS = 200


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder, _ = make_study(tmp_path_factory.mktemp("scale"), N_TRIALS, n_items=4)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_the_journal_once(study: StudyFolder, command: str) -> None:
    os.utime(study.journal)  # as if somebody else had written
    assert run_counted(command, study.root) == 1


def test_an_open_study_reads_its_journal_when_somebody_has_written(study: StudyFolder) -> None:
    os.utime(study.journal)
    with counted() as reads:
        opened = Study.open(study.root)
        assert len(opened.trials) == len(opened.optuna.trials) >= N_TRIALS
        change_run(study, [f"budget.trials={N_TRIALS + 2}"])
        assert not opened.is_finished
        assert len(reads) == 1
        os.utime(study.journal)
        assert len(opened.trials) >= N_TRIALS
        assert len(reads) == 2


def test_a_trial_of_fifty_genes_takes_less_than_three_kilobytes(study: StudyFolder) -> None:
    trials = read_study(study).trials
    assert {len(t.params) for t in trials} == {N_GENES}
    assert all(t.recipe["rules"] for t in trials)
    assert study.journal.stat().st_size < 3000 * N_TRIALS


def test_files_of_items_stay_few(study: StudyFolder) -> None:
    names = sorted(path.name for path in study.items.iterdir())
    assert sum(name.startswith("joined") for name in names) <= 2
    assert len(names) < 64 + 2
