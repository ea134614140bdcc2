"""Workers that hang, die, or are left behind: real processes of a real Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.execution.happenings import Happening
from evomerge.execution.patience import Patience
from evomerge.execution.protocol import Failed, Job, Scored
from evomerge.execution.ray import RayExecutor
from tests.execution.test_ray import job, run_all, spec

LOADING = """
import os, time
from dataclasses import replace
from evomerge.errors import StudyError
from evomerge.execution.ray import RayExecutor
from tests.execution.test_limits import Ends
from tests.execution.test_ray import spec
pool = RayExecutor(2)
print(pool._session, os.getpriority(os.PRIO_PROCESS, 0), flush=True)
print([os.getpriority(os.PRIO_PROCESS, pid) for pid in pool.worker_pids()], flush=True)
try: pool.load(replace(spec(), space=Ends()))
except StudyError as err: print("caught", str(err), flush=True)
time.sleep(600)
"""


class Ends:
    """Says something and ends whatever process reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os.write(2, b'the disk is on fire\\n'); os._exit(3)",)


class Sleeps:
    """Hangs whatever process reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (600,)


@pytest.fixture(scope="module")
def heard() -> list[Happening]:
    return []


@pytest.fixture(scope="module")
def pool(heard: list[Happening]) -> Iterator[RayExecutor]:
    executor = RayExecutor(2, patience=Patience(scale=0.004), hear=heard.append)
    executor.load(spec())
    yield executor
    executor.close()


@pytest.mark.survival
def test_a_worker_that_stands_still_is_reported_then_replaced(
    pool: RayExecutor, heard: list[Happening]
) -> None:
    run_all(pool, [job(i, 0.11 * i) for i in range(1, 6)])
    os.kill(pool.worker_pids()[0], signal.SIGSTOP)
    assert run_all(pool, [job(11, 0.77), job(12, 0.78)]).keys() == {11, 12}
    late = [one for one in heard if one.kind not in ("loaded", "started")]
    assert [one.kind for one in late] == ["waiting", "replaced", "retried"]
    trial = late[0].trial
    assert f"trial {trial} has run for" in late[0].text
    assert late[1].text.startswith(f"the worker of trial {trial} is replaced: it ran for more than")
    assert late[0].worker == late[1].worker in (0, 1)
    assert late[2].worker != late[1].worker


@pytest.mark.survival
def test_a_job_that_hangs_every_worker_has_failed(
    pool: RayExecutor, heard: list[Happening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool._watch, "patience", Patience(limit_s=1.0))  # before any of its kind
    bad: Any = Sleeps()
    pool.submit(Job(20, bad, split="validation"))
    while (failed := pool.next_outcome()) is None:  # another worker has loaded meanwhile
        pass
    assert isinstance(failed, Failed)
    assert failed.job.trial == 20
    assert "given up 2 times: it ran for more than 1 s (execution.trial_timeout)" in failed.error
    assert [one.kind for one in heard if one.trial == 20] == [
        *("started", "replaced", "retried", "replaced")
    ]


@pytest.mark.survival
def test_a_killed_driver_leaves_no_process_and_a_dead_worker_says_why() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", LOADING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    session, own = driver.stdout.readline().split()
    assert driver.stdout.readline().strip() == f"[{own}, {own}]"  # niceness of the workers
    said = driver.stdout.readline()
    assert said.startswith("caught workers die while they load: process")
    assert "ended with: the disk is on fire" in said
    family = writers(session)
    assert len(family) > 4
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 15
    while writers(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not writers(session)


def writers(session: str) -> list[int]:
    """List the processes of one Ray by the files of its session that they hold open."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(f"{session}/") for link in links):
            found.append(int(process.name))
    return found


def scored(trial: int, seconds: float, split: str = "search") -> Scored:
    from evomerge.evaluation.scores import Scores

    return Scored(replace(job(trial), split=split), Scores({}, (), 0.0), {"merge": seconds})


def test_nothing_is_slow_before_three_of_its_kind_have_finished() -> None:
    patience = Patience()
    for trial in range(2):
        patience.learn(scored(trial, 1.0), 100.0)
    patience.learn(scored(2, 0.0), 100.0)  # scored before, and read from the cache
    assert patience.limit_s(job(3)) == patience.slow_s(job(3)) == float("inf")
    patience.learn(scored(3, 1.0), 50.0)
    assert patience.slow_s(job(4)) == 4 * 100.0
    assert patience.limit_s(job(4)) == 20 * 100.0
    assert patience.limit_s(replace(job(4), split="test")) == float("inf")
    assert Patience(limit_s=5.0).limit_s(job(0)) == 5.0


def test_short_jobs_may_take_minutes() -> None:
    patience = Patience()
    for trial in range(3):
        patience.learn(scored(trial, 0.1), 0.2)
    assert patience.slow_s(job(4)) == 60.0
    assert patience.limit_s(job(4)) == 600.0
