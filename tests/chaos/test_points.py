"""Studies killed at writes that are spread over all of them, in each way; then left to finish."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.points import KILLED, MOMENTS, NOWHERE, Moment, Point, Writes
from tests.study.fakes import FormulaExecutor
from tests.study.test_search import drive, outcome

search = partial(drive, trials=7, sampler="map", options={"n_startup_trials": 4})


def life(folder: Path, point: Point = NOWHERE) -> int:
    """One driver in a process of its own: how much it wrote; 0 if it was killed."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        writes = Writes(folder, point)
        writes.watch()
        search(folder, FormulaExecutor())
        os.write(theirs, str(writes.n).encode())
        os._exit(0)
    os.close(theirs)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, KILLED)
    with os.fdopen(ours) as pipe:
        return int(pipe.read() or 0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_write_the_search_is_the_same(moment: Moment, tmp_path: Path) -> None:
    whole = outcome(search(tmp_path / "whole", FormulaExecutor()))
    n_writes = life(tmp_path / "count")
    assert n_writes > 50
    for n in range(1 + MOMENTS.index(moment), n_writes, 17):
        folder = tmp_path / str(n)
        assert life(folder, Point(n, moment)) == 0
        assert outcome(search(folder, FormulaExecutor())) == whole, n
