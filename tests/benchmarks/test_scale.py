"""A short study made as the long ones are: every command reads its journal once."""

from __future__ import annotations

import os

import pytest

from evomerge.api.study import Study
from evomerge.evaluation.store import ItemStore
from evomerge.runs.reading import read_study
from evomerge.runs.stages import change_run
from evomerge.study.folder import StudyFolder
from tests.benchmarks.scale import make
from tests.benchmarks.scale.cost import COMMANDS, counted, run_counted
from tests.benchmarks.scale.make import N_GENES

N_TRIALS = 200


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(make, "SEARCHED", N_TRIALS // 2)  # the rest repeats them
        folder, _ = make.make_study(tmp_path_factory.mktemp("scale"), N_TRIALS, n_items=4)
    return folder


def test_a_long_study_is_one_as_a_search_leaves_it(study: StudyFolder) -> None:
    trials = read_study(study).trials
    assert [t.number for t in trials[:N_TRIALS]] == list(range(N_TRIALS))
    assert {t.state for t in trials[:N_TRIALS]} == {"complete"}
    assert len({t.values for t in trials[:N_TRIALS]}) > N_TRIALS // 2
    assert {t.n_scores for t in trials[:N_TRIALS]} == {4}
    stored = ItemStore(study.items).read()
    assert set(stored["trial"]) == set(range(N_TRIALS))


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
