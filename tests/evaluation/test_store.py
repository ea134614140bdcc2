"""Item scores survive a kill at any moment, and stay quick to read when there are many."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evomerge
from evomerge.errors import StudyError
from evomerge.evaluation import store
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore


def rows(trial: int, n: int = 3) -> list[ItemScore]:
    return [ItemScore("task", i, "acc", float(trial), 0.5, 7, 0.01) for i in range(n)]


def scores(folder: Path) -> dict[tuple[int, str], list[float]]:
    table = ItemStore(folder).read()
    return {
        key: list(group["score"]) for key, group in table.groupby(["trial", "split"], observed=True)
    }


def test_what_is_written_is_read(tmp_path):
    ItemStore(tmp_path).write(3, "search", rows(3))
    table = ItemStore(tmp_path).read()
    assert list(table.columns) == [
        "trial", "split", "task", "item", "metric", "score", "smooth", "tokens", "seconds",
    ]  # fmt: skip
    assert table.iloc[2].tolist() == [
        3,
        "search",
        "task",
        2,
        "acc",
        3.0,
        0.5,
        7,
        pytest.approx(0.01),
    ]


def test_an_empty_store_has_the_columns_of_a_full_one(tmp_path):
    empty = ItemStore(tmp_path / "none").read()
    ItemStore(tmp_path).write(0, "search", rows(0))
    assert list(empty.columns) == list(ItemStore(tmp_path).read().columns)
    assert len(empty) == 0


def test_a_trial_written_again_replaces_its_rows_also_after_joining(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_JOIN_AT", 4)
    for trial in range(6):
        ItemStore(tmp_path).write(trial, "search", rows(trial))
    ItemStore(tmp_path).write(1, "search", rows(100))
    ItemStore(tmp_path).write(1, "test", rows(50))
    expected = {(t, "search"): [float(t)] * 3 for t in range(6)}
    expected |= {(1, "search"): [100.0] * 3, (1, "test"): [50.0] * 3}
    assert scores(tmp_path) == expected
    assert len(list(tmp_path.glob("*.parquet"))) == 1


@pytest.mark.parametrize("deleted", [0, 1, 3])
def test_a_kill_between_joining_and_clearing_away_loses_and_repeats_nothing(
    tmp_path, monkeypatch, deleted
):
    for trial in range(4):
        ItemStore(tmp_path).write(trial, "search", rows(trial))
    before = scores(tmp_path)
    monkeypatch.setattr(store, "_JOIN_AT", 5)
    unlinked = []

    def unlink(path: Path) -> None:
        if len(unlinked) == deleted:
            raise KeyboardInterrupt
        unlinked.append(path)
        path.rename(path.with_suffix(".gone"))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            ItemStore(tmp_path).write(4, "search", rows(4))
    assert scores(tmp_path) == before | {(4, "search"): [4.0] * 3}
    for trial in range(5, 12):
        ItemStore(tmp_path).write(trial, "search", rows(trial))
    assert scores(tmp_path) == {(t, "search"): [float(t)] * 3 for t in range(12)}


WRITER = """
import sys
from pathlib import Path
from evomerge.evaluation import store
from evomerge.evaluation.scores import ItemScore
store._JOIN_AT = 5
for trial in range(100000):
    items = [ItemScore("task", i, "acc", float(trial)) for i in range(500)]
    store.ItemStore(Path(sys.argv[1])).write(trial, "search", items)
    print(trial, flush=True)
"""


@pytest.mark.parametrize("delay", [0.011, 0.053, 0.097])
def test_killed_in_the_middle_of_a_write_it_opens_and_loses_at_most_one_trial(tmp_path, delay):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        told = [0, *map(int, writer.stdout.read().split())]
    found = scores(tmp_path)
    assert all(len(values) == 500 and set(values) == {float(t)} for (t, _), values in found.items())
    assert set(range(told[-1] + 1)) <= {trial for trial, _ in found}


def test_files_of_the_first_version_are_read(tmp_path):
    old = {
        "trial": [0],
        "split": ["search"],
        "task": ["t"],
        "item": [4],
        "metric": ["acc"],
        "score": [0.5],
    }
    pq.write_table(pa.table(old), tmp_path / "000000.search.parquet")
    ItemStore(tmp_path).write(1, "search", rows(1, n=1))
    assert list(ItemStore(tmp_path).read()["score"]) == [0.5, 1.0]


def test_many_trials_are_compact_and_read_at_once(tmp_path):
    items = [ItemScore("task", i, "acc", float(i % 2), 0.5, 7) for i in range(2000)]
    for trial in range(130):
        ItemStore(tmp_path).write(trial, "search", items)
    assert len(ItemStore(tmp_path).read()) == 260_000
    files = list(tmp_path.glob("*.parquet"))
    assert len(files) == 1 + 2
    assert sum(file.stat().st_size for file in files) < 1_500_000


def test_items_of_a_study_in_one_call(tmp_path):
    with pytest.raises(StudyError, match="expected a study folder"):
        evomerge.items(tmp_path)
    (tmp_path / "experiment.yaml").touch()
    ItemStore(tmp_path / "items").write(0, "search", rows(0))
    assert list(evomerge.items(str(tmp_path))["score"]) == [0.0] * 3


def test_some_trials_are_read_also_after_joining(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_JOIN_AT", 3)
    monkeypatch.setattr(store, "_GROUP", 4)
    items = ItemStore(tmp_path)
    for trial in range(8):
        items.write(trial, "search", rows(trial))
    items.write(1, "test", rows(1, n=2))
    assert [items.read_trial(trial, "search") for trial in range(8)] == [rows(t) for t in range(8)]
    assert items.read_trial(1, "test") == rows(1, n=2)
    assert items.read_trial(2, "test") == []
    some, all_of_it = items.read({1, 5, 99, 10**40}), items.read()
    assert some.astype(object).equals(
        all_of_it[all_of_it["trial"].isin((1, 5))].reset_index(drop=True).astype(object)
    )
    assert len(some) == 3 + 2 + 3
    assert list(items.read(()).columns) == list(some.columns)


@pytest.mark.parametrize("listing", ["_singles", "_joined"])
def test_a_reader_misses_nothing_that_is_joined_while_it_lists_the_files(
    tmp_path, monkeypatch, listing
):
    monkeypatch.setattr(store, "_JOIN_AT", 4)
    writer, reader = ItemStore(tmp_path), ItemStore(tmp_path)
    for trial in range(3):
        writer.write(trial, "search", rows(trial))
    listed, more = getattr(reader, listing), iter([3])

    def listed_just_before_a_join():
        found = listed()
        for trial in more:
            writer.write(trial, "search", rows(trial))
        return found

    monkeypatch.setattr(reader, listing, listed_just_before_a_join)
    assert list(reader.read()["trial"].unique()) == [0, 1, 2, 3]


def test_a_trial_is_found_that_is_joined_while_it_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_JOIN_AT", 4)
    writer = ItemStore(tmp_path)
    for trial in range(3):
        writer.write(trial, "search", rows(trial))
    is_file, more = Path.is_file, iter([3])

    def seen_just_before_a_join(path: Path) -> bool:
        found = is_file(path)
        for trial in more:
            writer.write(trial, "search", rows(trial))
        return found

    monkeypatch.setattr(Path, "is_file", seen_just_before_a_join)
    assert ItemStore(tmp_path).read_trial(1, "search") == rows(1)
    assert not list(tmp_path.glob("0*.parquet"))


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-30], lambda b: b"PAR1" + b[20:]])
def test_a_damaged_file_is_named(tmp_path, damage):
    for trial in range(3):
        ItemStore(tmp_path).write(trial, "search", rows(trial))
    path = tmp_path / "000001.search.parquet"
    path.write_bytes(damage(path.read_bytes()))
    for read in (ItemStore(tmp_path).read, lambda: ItemStore(tmp_path).read_trial(1, "search")):
        with pytest.raises(StudyError, match=r"000001\.search\.parquet are damaged .*restore"):
            read()


@pytest.mark.parametrize("text", [b"score", b"task", b"named"], ids=["column", "other", "value"])
def test_a_file_whose_text_is_none_is_named(tmp_path, text):
    ItemStore(tmp_path).write(1, "search", [ItemScore("named", 0, "acc", 1.0, 0.5, 7, 0.01)])
    path = tmp_path / "000001.search.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")
    path.write_bytes(path.read_bytes().replace(text, text[:-1] + b"\xe5"))
    with pytest.raises(StudyError, match=r"000001\.search\.parquet are damaged .*restore"):
        ItemStore(tmp_path).read()


def test_a_link_is_no_file_of_scores(tmp_path):
    ItemStore(tmp_path / "items").write(0, "search", rows(0))
    path = (tmp_path / "items" / "000000.search.parquet").rename(tmp_path / "elsewhere")
    (tmp_path / "items" / "000000.search.parquet").symlink_to(path)
    with pytest.raises(StudyError, match=r"expected item scores at .*search\.parquet, got a link"):
        ItemStore(tmp_path / "items").read()


def test_the_trials_of_a_split(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_JOIN_AT", 3)
    for trial in range(4):
        ItemStore(tmp_path).write(trial, "search", rows(trial))
    ItemStore(tmp_path).write(2, "test", rows(2))
    assert ItemStore(tmp_path).trials("search") == {0, 1, 2, 3}
    assert ItemStore(tmp_path).trials("test") == {2}
    assert ItemStore(tmp_path / "none").trials("test") == set()
