from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from evomerge.errors import StudyError
from evomerge.study.storage import open_storage, repair_journal, together


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


def lines_of_a_study(path: Path) -> list[bytes]:
    study = new_study(path)
    for _ in range(3):
        trial = study.ask()
        with together(study._storage):
            trial.suggest_float("x", 0, 1)
            study.tell(trial, 1.0)
    return path.read_bytes().splitlines(keepends=True)


def test_every_record_says_which_line_it_is(tmp_path: Path) -> None:
    lines = lines_of_a_study(tmp_path / "journal")
    assert [json.loads(line)["line"] for line in lines] == list(range(1, len(lines) + 1))


GARBAGE = [
    b"[" * 100_000,
    b"garbage",
    b'{"op_co',
    bytes(4),
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'{"op_code":6,"line":5}',
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_damaged_line_is_named(tmp_path: Path, garbage: bytes) -> None:
    lines = lines_of_a_study(tmp_path / "journal")
    lines[4] = garbage + b"\n"
    (tmp_path / "journal").write_bytes(b"".join(lines))
    with pytest.raises(StudyError, match=r"journal, line 5 is damaged; restore the file"):
        open_storage(tmp_path / "journal")


@pytest.mark.parametrize("place", [slice(0, 1), slice(3, 6), slice(7, 8)])
def test_lines_that_were_cut_out_are_missed(tmp_path: Path, place: slice) -> None:
    lines = lines_of_a_study(tmp_path / "journal")
    del lines[place]
    (tmp_path / "journal").write_bytes(b"".join(lines))
    at = place.start + 1
    with pytest.raises(StudyError, match=rf"line {at}: expected record {at}, got {place.stop + 1}"):
        open_storage(tmp_path / "journal")


def test_a_journal_whose_records_do_not_say_their_line_is_read_and_continued(
    tmp_path: Path,
) -> None:
    lines = [json.loads(line) for line in lines_of_a_study(tmp_path / "journal")]
    old = [json.dumps({k: v for k, v in line.items() if k != "line"}) + "\n" for line in lines]
    (tmp_path / "journal").write_text("".join(old))
    study = new_study(tmp_path / "journal")
    study.ask()
    assert len(study.trials) == 4
    assert len(plain(tmp_path / "journal").trials) == 4


def test_a_journal_that_is_damaged_while_it_is_open_is_not_written_to(tmp_path: Path) -> None:
    lines_of_a_study(tmp_path / "journal")
    study = new_study(tmp_path / "journal")
    with (tmp_path / "journal").open("ab") as file:
        file.write(b"garbage\n{}\n")
    before = (tmp_path / "journal").read_bytes()
    with pytest.raises(StudyError, match="is damaged"):
        study.ask()
    assert (tmp_path / "journal").read_bytes() == before
    assert not (tmp_path / "journal.lock").exists()


def test_a_last_line_that_is_whole_but_damaged_is_named_before_anything_follows_it(
    tmp_path: Path,
) -> None:
    lines = lines_of_a_study(tmp_path / "journal")
    repair_journal(tmp_path / "journal")
    (tmp_path / "journal").write_bytes(b"".join([*lines, b"garbage\n"]))
    with pytest.raises(StudyError, match=rf"line {len(lines) + 1}, the last one, is damaged"):
        repair_journal(tmp_path / "journal")
