"""Workers on Ray, with the embedded models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.config.presets import Presets
from evomerge.errors import CheckpointError, StudyError
from evomerge.execution.inline import InlineExecutor
from evomerge.execution.protocol import Executor, Failed, Job, Scored, WorkerSpec
from evomerge.execution.ray import RayExecutor
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import load_suites

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}


def spec() -> WorkerSpec:
    suites = tuple(replace(s, limit=8) for s in load_suites(["zoo"], Presets(), Path.cwd()))
    return WorkerSpec("zoo:base", EXPERTS, suites)


def job(trial: int, coefficient: float = 0.5, method: str = "task_arithmetic") -> Job:
    rule = Rule(method, {"coefficient": coefficient})
    return Job(trial, Recipe(EXPERTS, (rule,), base="zoo:base"))


@pytest.fixture(scope="module")
def pool() -> Iterator[RayExecutor]:
    executor = RayExecutor(2)
    executor.load(spec())
    yield executor
    executor.close()


def run_all(executor: Executor, jobs: list[Job]) -> dict[int, object]:
    outcomes = {}
    waiting, in_flight = list(jobs), 0
    while waiting or in_flight:
        while waiting and in_flight < executor.n_workers:
            executor.submit(waiting.pop())
            in_flight += 1
        outcome = executor.next_outcome()
        in_flight -= 1
        assert isinstance(outcome, Scored), outcome
        metrics = outcome.scores.metrics
        outcomes[outcome.job.trial] = {t: dict(m) for t, m in metrics.items()}
    return outcomes


def test_ray_workers_score_as_the_inline_worker(pool: RayExecutor) -> None:
    jobs = [job(i, 0.2 * i) for i in range(5)]
    inline = InlineExecutor()
    inline.load(spec())
    assert run_all(pool, jobs) == run_all(inline, jobs)


def test_a_job_that_raises_is_a_failure_with_its_reason(pool: RayExecutor) -> None:
    pool.submit(job(7, method="no_such_method"))
    outcome = pool.next_outcome()
    assert isinstance(outcome, Failed)
    assert outcome.job.trial == 7
    assert "no_such_method" in outcome.error
    assert "Traceback" in outcome.traceback


def test_the_job_of_a_killed_worker_runs_again_elsewhere(pool: RayExecutor) -> None:
    for pid in pool.worker_pids():
        os.kill(pid, signal.SIGKILL)
    outcomes = run_all(pool, [job(1), job(2)])
    assert outcomes.keys() == {1, 2}


def test_a_worker_that_cannot_start_raises_the_users_fault() -> None:
    bad = replace(spec(), experts={"math": "zoo:math", "gone": "zoo:gone"})
    with pytest.raises(CheckpointError, match="gone"):
        InlineExecutor().load(bad)


def test_a_ray_worker_that_cannot_load_raises_the_users_fault(pool: RayExecutor) -> None:
    """The last test of the pool, which is without workers then."""
    with pytest.raises(CheckpointError, match="gone"):
        pool.load(replace(spec(), experts={"gone": "zoo:gone"}))


@pytest.mark.survival
def test_a_worker_that_ray_kills_to_save_memory_counts_as_dead() -> None:
    """In a process of its own, whose Ray holds every machine for full."""
    code = (
        "from evomerge.errors import StudyError\n"
        "from evomerge.execution.ray import RayExecutor\n"
        "from tests.execution.test_ray import spec\n"
        "try: RayExecutor(1).load(spec())\n"
        "except StudyError as err: print('caught', err)\n"
    )
    always_full = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "50"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **always_full},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "caught workers die while they load" in done.stdout, done.stderr


def test_a_machine_too_busy_to_start_ray_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[object] = []

    def start(**options: object) -> None:
        starts.append(options)
        raise Exception("The current node timed out during startup. Something\nelse")

    monkeypatch.setattr("ray.init", start)
    with pytest.raises(StudyError, match="expected Ray to start on this machine, got 3") as error:
        RayExecutor(1)
    assert len(starts) == 3
    assert len(str(error.value).splitlines()) == 1
