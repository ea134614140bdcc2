from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from evomerge.study.storage import open_storage, together


def new_study(path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(path), study_name="s", load_if_exists=True)


def plain(path: Path) -> optuna.Study:
    backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
    return optuna.load_study(study_name="s", storage=JournalStorage(backend))


def test_a_batch_is_seen_at_once_here_and_after_its_end_by_others(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    reader = plain(tmp_path / "journal")
    trial = study.ask()
    with together(study._storage):
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("note", "held")
        assert study.trials[0].params.keys() == {"x"}
        assert reader.trials[0].params == {}
        study.tell(trial, 1.0)
    for other in (reader, plain(tmp_path / "journal"), new_study(tmp_path / "journal")):
        assert other.trials == study.trials
    assert not (tmp_path / "journal.lock").exists()


def test_a_batch_that_fails_keeps_what_it_stored_and_nothing_before_its_end(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    trial = study.ask()

    def suggest_and_fail() -> None:
        with together(study._storage):
            trial.suggest_float("x", 0, 1)
            assert b'"x"' not in (tmp_path / "journal").read_bytes()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        suggest_and_fail()
    assert plain(tmp_path / "journal").trials[0].params.keys() == {"x"}


def test_what_others_write_between_batches_keeps_its_place(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    other = plain(tmp_path / "journal")
    for turn in range(3):
        trial = study.ask()
        other._storage.set_trial_user_attr(trial._trial_id, "comment", f"of turn {turn}")
        with together(study._storage):
            trial.suggest_float("x", 0, 1)
            study.tell(trial, float(turn))
    assert study.trials == plain(tmp_path / "journal").trials == other.trials
    assert [t.user_attrs["comment"] for t in study.trials] == [f"of turn {n}" for n in range(3)]


def test_a_batch_without_records_leaves_the_file_alone(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    before = (tmp_path / "journal").read_bytes()
    with together(study._storage):
        assert study.trials == []
    assert (tmp_path / "journal").read_bytes() == before
