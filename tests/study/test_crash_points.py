"""Drivers killed at a certain write, killed again at another, and then left to finish."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage

from tests.chaos.points import KILLED, MOMENTS, Moment, Point, Writes
from tests.study.fakes import FormulaExecutor
from tests.study.test_climbs import Chain, climbs
from tests.study.test_search import drive, outcome

CHANGES = (  # of a database
    *("_create_new_trial", "_set_trial_param", "set_trial_state_values"),
    *("set_trial_user_attr", "set_trial_system_attr"),
)
search = partial(drive, trials=8, sampler="map", options={"n_startup_trials": 4})


class Waits:
    """Counts waits for the disk, or changes of a database; may end the process before one."""

    def __init__(self, die_at: int, *, is_database: bool) -> None:
        self._die_at, self._is_database, self.n = die_at, is_database, 0

    def counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def count_and_write(*args: Any, **kwargs: Any) -> Any:
            self.n += 1
            if self.n == self._die_at:
                os._exit(KILLED)
            return write(*args, **kwargs)

        return count_and_write

    def watch(self) -> None:
        for name in CHANGES if self._is_database else ():
            setattr(RDBStorage, name, self.counted(getattr(RDBStorage, name)))
        os.fsync = os.fsync if self._is_database else self.counted(os.fsync)


def life(
    folder: Path,
    url: str | None,
    *,
    die_at: int = -1,
    search: Callable[..., Any] = search,
    writes: Waits | Writes | None = None,
) -> int:
    """One driver in a process of its own: how many writes it made; 0 if it was killed."""
    writes = writes or Waits(die_at, is_database=url is not None)
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        writes.watch()
        search(folder, FormulaExecutor(), url=url)
        os.write(theirs, str(writes.n).encode())
        os._exit(0)
    os.close(theirs)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, KILLED)
    with os.fdopen(ours) as pipe:
        return int(pipe.read() or 0)


@pytest.mark.parametrize(
    ("kind", "firsts", "seconds"),  # writes from the end, and from the start of the next driver
    [("journal", (8, 6), (2, 3)), ("database", (18, 16), (3,))],
)
def test_killed_twice_at_any_write_the_search_is_the_same(
    tmp_path: Path, kind: str, firsts: tuple[int, ...], seconds: tuple[int, ...]
) -> None:
    """The first kill is at the writes of a trial that a model proposes, the next soon after."""
    whole = search(tmp_path / "whole", FormulaExecutor())

    def place(name: str) -> tuple[Path, str | None]:
        return tmp_path / name, f"sqlite:///{tmp_path / name}.db" if kind == "database" else None

    n_writes = life(*place("count"))
    for first, second in itertools.product(firsts, seconds):
        folder, url = place(f"{first} {second}")
        assert life(folder, url, die_at=n_writes - first) == 0
        assert life(folder, url, die_at=second) == 0
        resumed = search(folder, FormulaExecutor(), url=url)
        assert outcome(resumed) == outcome(whole), f"{first} from the end, then at {second}"


@pytest.mark.parametrize(("kind", "writes"), [("journal", (1, 2, 3)), ("database", (3, 6, 8, 9))])
def test_killed_at_any_write_of_an_ask_the_climbs_are_the_same(
    tmp_path: Path, kind: str, writes: tuple[int, ...]
) -> None:
    """The writes of the second trial that climbs, from where the first one was told."""
    climbing = partial(drive, trials=10, sampler=Chain())

    def place(name: str) -> tuple[Path, str | None]:
        return tmp_path / name, f"sqlite:///{tmp_path / name}.db" if kind == "database" else None

    told = life(*place("told"), search=partial(climbing, trials=8))
    whole = life(*place("whole"), search=climbing)
    assert 0 < told < whole
    for write in writes:
        at = place(f"killed at {write}")
        assert life(*at, die_at=told + write, search=climbing) == 0
        life(*at, search=climbing)
        assert climbs(*at) == climbs(*place("whole"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_change_of_a_file_the_search_is_the_same(
    moment: Moment, tmp_path: Path
) -> None:
    """Before, in the middle of and after waits, renames and removals, all over a search."""
    whole = outcome(search(tmp_path / "whole", FormulaExecutor()))
    n_writes = life(tmp_path / "count", None, writes=Writes(tmp_path / "count"))
    assert n_writes > 50
    for n in range(1 + MOMENTS.index(moment), n_writes, 17):
        folder = tmp_path / str(n)
        assert life(folder, None, writes=Writes(folder, Point(n, moment))) == 0
        assert outcome(search(folder, FormulaExecutor())) == whole, n
