from __future__ import annotations

import json
import math
import os
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from evomerge.errors import StudyError
from evomerge.study.journal import Journal
from evomerge.study.storage import open_storage, repair_journal, together
from evomerge.study.trial_journal import TrialJournal


def new_study(path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage(path), study_name="s", load_if_exists=True)


def other(path: Path) -> optuna.Study:
    """The study as another process sees it."""
    return optuna.load_study(study_name="s", storage=TrialJournal(Journal(path)))


def test_a_batch_is_seen_at_once_here_and_after_its_end_by_others(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    reader = other(tmp_path / "journal")
    trial = study.ask()
    with together(study._storage):
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("note", "held")
        assert study.trials[0].params.keys() == {"x"}
        assert reader.trials[0].params == {}
        study.tell(trial, 1.0)
    for one in (reader, other(tmp_path / "journal"), new_study(tmp_path / "journal")):
        assert one.trials == study.trials
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
    assert other(tmp_path / "journal").trials[0].params.keys() == {"x"}


def test_what_others_write_between_batches_keeps_its_place(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    beside = other(tmp_path / "journal")
    for turn in range(3):
        trial = study.ask()
        beside._storage.set_trial_user_attr(trial._trial_id, "comment", f"of turn {turn}")
        with together(study._storage):
            trial.suggest_float("x", 0, 1)
            study.tell(trial, float(turn))
    assert study.trials == other(tmp_path / "journal").trials == beside.trials
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


@pytest.mark.parametrize("place", [slice(0, 1), slice(2, 4), slice(5, 6)])
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
    assert len(other(tmp_path / "journal").trials) == 4


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


def test_damaged_params_are_said_to_be_whenever_somebody_looks(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    study.optimize(suggest_mixed, n_trials=1)
    text = (tmp_path / "journal").read_text()
    start = text.rindex('"params":"') + len('"params":"')
    (tmp_path / "journal").write_text(f"{text[:start]}AAAA{text[start + 4 :][4:]}")
    (trial,) = other(tmp_path / "journal").get_trials(deepcopy=False)
    for _ in range(2):
        with pytest.raises(StudyError, match=r"params .* are damaged; restore"):
            _ = trial.params


def test_a_last_line_that_is_whole_but_damaged_is_named_before_anything_follows_it(
    tmp_path: Path,
) -> None:
    lines = lines_of_a_study(tmp_path / "journal")
    repair_journal(tmp_path / "journal")
    (tmp_path / "journal").write_bytes(b"".join([*lines, b"garbage\n"]))
    with pytest.raises(StudyError, match=rf"line {len(lines) + 1}, the last one, is damaged"):
        repair_journal(tmp_path / "journal")


def other_process_writes(path: Path, cut: int) -> bytes:
    """Leave a line of another process without its last bytes; return what was there before."""
    whole = path.read_bytes()
    other(path).ask()
    path.write_bytes(path.read_bytes()[:-cut])
    return whole


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_is_passed_over_and_cut_off_before_the_next(
    tmp_path: Path, cut: int
) -> None:
    study = new_study(tmp_path / "journal")
    study.ask().suggest_float("x", 0, 1)
    whole = other_process_writes(tmp_path / "journal", cut)
    assert [t.number for t in other(tmp_path / "journal").trials] == [0]
    assert study.ask().number == 1
    content = (tmp_path / "journal").read_bytes()
    assert content.startswith(whole)
    assert len(content.splitlines()) == len(whole.splitlines()) + 1
    assert other(tmp_path / "journal").trials == study.trials


def test_what_could_not_be_written_is_neither_in_the_file_nor_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(tmp_path / "journal")
    trial = study.ask()
    before = (tmp_path / "journal").read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    def suggest_and_note() -> None:
        with together(study._storage):
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr("note", "lost")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            suggest_and_note()
    assert (tmp_path / "journal").read_bytes() == before
    assert study.trials[0].params == {}
    with together(study._storage):
        trial.set_user_attr("note", "kept")
        study.tell(trial, 1.0)
    assert other(tmp_path / "journal").trials == study.trials


def test_a_line_whose_end_comes_while_others_are_read_is_whole(tmp_path: Path) -> None:
    lines = lines_of_a_study(tmp_path / "journal")
    cut = len(lines[-1]) // 2
    (tmp_path / "journal").write_bytes(b"".join(lines)[:-cut])
    rest, found = lines[-1][-cut:], []
    for records in Journal(tmp_path / "journal").read_on():
        found += [record["line"] for record in records]
        with (tmp_path / "journal").open("ab") as file:
            file.write(rest)
        rest = b""
    assert found == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("value", [math.nan, -math.inf, 2**130, -(2**64), 5e-324, "\ud800", "ü\n"])
def test_whatever_python_can_write_is_read(tmp_path: Path, value: object) -> None:
    new_study(tmp_path / "journal").ask().set_user_attr("odd", [value, 1])
    (trial,) = other(tmp_path / "journal").trials
    assert repr(trial.user_attrs["odd"]) == repr([value, 1])


def suggest_mixed(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("kind", ["a", "b", None])
    layers = trial.suggest_int("layers", 2, 10, step=2)
    scale = trial.suggest_float("scale", 1e-5, 1.0, log=True)
    extra = trial.suggest_float("extra", -1.0, 1.0) if kind == "b" else 0.0
    trial.set_user_attr("kind", {"is": kind, "n": [1, None, 0.1]})
    trial.report(scale, step=3)
    if layers == 4:
        raise optuna.TrialPruned
    return layers + scale + extra


def without_times(trials: list[FrozenTrial]) -> list[dict[str, object]]:
    names = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    return [{n: getattr(t, n) for n in (*names, "intermediate_values")} for t in trials]


@pytest.mark.parametrize("in_batches", [False, True])
def test_it_stores_what_optunas_own_storage_stores(tmp_path: Path, in_batches: bool) -> None:
    """Conditional genes of every kind, given trials, pruned and failed ones, steps, attributes."""
    found = []
    for storage in (InMemoryStorage(), open_storage(tmp_path / "journal")):
        sampler = optuna.samplers.TPESampler(seed=3, n_startup_trials=5)
        study = optuna.create_study(study_name="s", storage=storage, sampler=sampler)
        study.enqueue_trial({"kind": "b", "extra": 0.25}, user_attrs={"origin": "given"})
        study.add_trial(optuna.create_trial(value=7.0))
        with together(storage) if in_batches else nullcontext():
            study.optimize(suggest_mixed, n_trials=25)
            study.tell(study.ask(), state=TrialState.FAIL)
        study.set_user_attr("about", {"a": 1})
        study.ask()
        found.append(study)
    assert without_times(found[1].trials) == without_times(found[0].trials)
    again = other(tmp_path / "journal")
    assert again.trials == found[1].trials
    assert again.user_attrs == found[0].user_attrs
    assert [d.name for d in again.directions] == ["MINIMIZE"]
    assert again.best_trial.params == found[0].best_trial.params


def test_a_journal_of_optunas_own_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
    sampler = optuna.samplers.RandomSampler(seed=0)
    early = optuna.create_study(study_name="s", storage=JournalStorage(backend), sampler=sampler)
    early.enqueue_trial({"kind": "a"})
    early.optimize(suggest_mixed, n_trials=12)
    early.ask()
    study = new_study(path)
    assert without_times(study.trials) == without_times(early.trials)
    assert [t.datetime_start for t in study.trials] == [t.datetime_start for t in early.trials]
    assert [t.duration for t in study.trials] == [t.duration for t in early.trials]
    study.optimize(suggest_mixed, n_trials=3)
    assert other(path).trials == study.trials
    assert len(study.trials) == 16


def test_a_trial_that_was_handed_out_stays_as_it_was(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    trial = study.ask()
    (before,) = study.get_trials(deepcopy=False)
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 1.0)
    assert (before.state, before.params, before.values) == (TrialState.RUNNING, {}, None)
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("late", 1)


def test_a_trial_of_many_genes_takes_three_lines_and_little_room(tmp_path: Path) -> None:
    study = new_study(tmp_path / "journal")
    sizes = []
    for _ in range(3):
        before = (tmp_path / "journal").stat().st_size
        trial = study.ask()
        with together(study._storage):
            for i in range(50):
                trial.suggest_float(f"coefficient.attention.{i}.math", 0, 1)
        study.tell(trial, 1.0)
        sizes.append((tmp_path / "journal").stat().st_size - before)
    assert len((tmp_path / "journal").read_bytes().splitlines()) == 1 + 3 * 3
    assert sizes[2] < 50 * 8 * 4 / 3 + 400
