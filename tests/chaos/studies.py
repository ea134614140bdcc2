"""A small study that is killed and resumed, beside one that nobody disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord
from tests.chaos.drivers import Driver
from tests.chaos.points import KILLED, MOMENTS, NOWHERE, Point
from tests.studies.make import EXPERIMENT, write_task

__all__ = ["KILLS", "TRIALS", "Case", "Result", "disturbed", "undisturbed"]

TRIALS = 10
_LONGEST_S = 600.0  # of one life, on a busy machine
_MOST_LIVES = 8
_KEY = ["trial", "split", "task", "item", "metric"]
_EXACT = [*_KEY, "score", "smooth", "tokens"]  # all but the seconds
Kill = Literal["driver", "group", "worker", "point"]
KILLS: tuple[Kill, ...] = ("driver", "group", "worker", "point")


@dataclass(frozen=True)
class Case:
    """How a study runs, and what kills it.

    Attributes:
        sampler: Its name.
        workers: Of Ray; 0: inline.
        kill: What ends, and whether that is at a time or at a write (``point``).
    """

    sampler: str
    workers: int
    kill: Kill

    @property
    def executor(self) -> str:
        """Name the executor for people."""
        return f"ray, {self.workers}" if self.workers else "inline"

    @property
    def is_deterministic(self) -> bool:
        """Whether results arrive in the same order every time."""
        return self.workers < 2


@dataclass(frozen=True)
class Result:
    """What became of a study.

    Attributes:
        kills: How often something was killed.
        resumed: How many drivers went on.
        lost: Trials that were finished once and are no more, or that are missing in the end.
        doubled: Trials that ran again though they were finished, above the budget, or stored twice.
        identical: Whether params, values and item scores are those of the undisturbed study; none
            where results arrive in any order.
        left_over: Processes that outlived their driver.
        fault: What else went wrong.
    """

    kills: int = 0
    resumed: int = 0
    lost: int = 0
    doubled: int = 0
    identical: bool | None = None
    left_over: int = 0
    fault: str = ""


@dataclass(frozen=True)
class _Undisturbed:
    folder: Path
    seconds: float
    n_writes: int


def undisturbed(case: Case, root: Path) -> _Undisturbed:
    """Run a study once; how long it takes, and how often it writes."""
    folder = root / f"{case.sampler}-{case.workers}"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier check
    started = time.monotonic()
    driver = Driver(_start(case, folder), folder.with_suffix(".log"), folder)
    status = driver.status(_LONGEST_S)
    driver.clear()
    if status != 0:
        raise StudyError(f"expected the undisturbed {folder.name} to end with 0, got {status}")
    return _Undisturbed(folder, time.monotonic() - started, driver.n_writes)


def disturbed(case: Case, whole: _Undisturbed, folder: Path, seed: int) -> Result:
    """Run a study that is killed up to three times, and say what became of it."""
    rng = random.Random(seed)
    kills_left, result, done = rng.randint(1, 3), Result(), dict[int, TrialRecord]()
    for life in range(_MOST_LIVES):
        point = _point(case, whole, rng) if kills_left else NOWHERE
        driver = Driver(_arguments(case, folder), folder.with_suffix(".log"), folder, point)
        kills = _kills(driver, case.kill, kills_left, whole.seconds, rng)
        status = _end(driver)
        kills += status == KILLED
        kills_left -= kills
        result = replace(
            result,
            kills=result.kills + kills,
            resumed=result.resumed + (life > 0),
            left_over=result.left_over + driver.clear(),
        )
        if status == 0:
            return _judged(result, case, whole.folder, folder, done)
        if status not in (KILLED, -KILLED):
            return replace(result, fault=f"a driver ended with {status}")
        done |= _finished(folder)
    return replace(result, fault=f"not finished after {_MOST_LIVES} drivers")


def _arguments(case: Case, folder: Path) -> tuple[object, ...]:
    is_begun = (folder / "experiment.yaml").is_file()
    return ("resume", folder) if is_begun else _start(case, folder)


def _kills(driver: Driver, kill: Kill, most: int, seconds: float, rng: random.Random) -> int:
    """Kill at times within as long as a study takes; how often there was something to kill."""
    for n in range(most if kill != "point" else 0):
        if driver.status(rng.uniform(0, seconds)) is not None:
            return n
        if kill != "worker":
            driver.kill(group=kill == "group")
            return 1
        while not (workers := driver.workers()):
            if driver.status(0.1) is not None:
                return n
        os.kill(rng.choice(workers), signal.SIGKILL)
    return most if kill == "worker" else 0


def _end(driver: Driver) -> int | None:
    status = driver.status(_LONGEST_S)
    if status is None:  # it hangs
        driver.kill(group=True)
        driver.status(_LONGEST_S)
    return status


def _start(case: Case, folder: Path) -> tuple[object, ...]:
    """Write the experiment beside a study; return the command that starts it."""
    beside = folder.parent
    if not (beside / "tasks").exists():
        write_task(beside / "tasks")
    file = beside / f"{case.sampler}-{case.workers}.yaml"
    content = {
        **EXPERIMENT,
        "sampler": case.sampler,
        "budget": {"trials": TRIALS},
        "execution": {"executor": "ray", "workers": case.workers}
        if case.workers
        else {"executor": "inline"},
    }
    file.write_text(yaml.safe_dump(content))
    return ("run", file, "--dir", folder)


def _point(case: Case, whole: _Undisturbed, rng: random.Random) -> Point:
    if case.kill != "point":
        return NOWHERE
    return Point(rng.randint(1, whole.n_writes), rng.choice(MOMENTS))


def _finished(folder: Path) -> dict[int, TrialRecord]:
    if not (folder / "experiment.yaml").is_file():
        return {}
    trials = read_study(StudyFolder(folder)).trials
    return {trial.number: trial for trial in trials if trial.state == "complete"}


def _judged(
    result: Result, case: Case, whole: Path, folder: Path, done: dict[int, TrialRecord]
) -> Result:
    """Look at a finished study."""
    trials = {trial.number: trial for trial in read_study(StudyFolder(folder)).trials}
    items = ItemStore(folder / "items").read()
    is_complete = [n in trials and trials[n].state == "complete" for n in range(TRIALS)]
    without_items = set(range(TRIALS)) - set(items["trial"])
    again = [n for n, trial in done.items() if n in trials and trials[n] != trial]
    return replace(
        result,
        lost=is_complete.count(False) + len(without_items),
        doubled=len(trials.keys() - range(TRIALS)) + len(again) + int(items.duplicated(_KEY).sum()),
        identical=_outcome(folder) == _outcome(whole) if case.is_deterministic else None,
    )


def _outcome(folder: Path) -> object:
    """List what a study found, all of it that is no time."""
    trials = read_study(StudyFolder(folder)).trials
    items = ItemStore(folder / "items").read().sort_values(_KEY)[_EXACT]
    found = [(t.number, t.state, t.origin, t.params, t.values, t.stderr) for t in trials]
    return repr(found), items.to_csv(index=False, float_format="%r")
