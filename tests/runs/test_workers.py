"""How many workers run on this machine, and on what."""

from __future__ import annotations

import os
from typing import Literal

import pytest
import torch

from evomerge.config.experiment import ExecutionConfig
from evomerge.execution.protocol import WorkerSpec
from evomerge.runs.workers import on_device, worker_count


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell")
def test_one_worker_runs_per_core_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})
    assert worker_count(ExecutionConfig()) == 3


def test_where_the_system_does_not_tell_there_is_one_per_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert worker_count(ExecutionConfig()) == 8


@pytest.mark.parametrize(
    ("n_gpus", "executor", "gpus_per_worker", "expected"),
    [
        (0, "ray", 1.0, ("cpu", 1.0)),
        (2, "ray", 0.5, ("cuda", 0.5)),
        (2, "ray", 2.0, ("cuda", 1.0)),
        (2, "ray", 0.0, ("cpu", 1.0)),
        (1, "inline", 0.5, ("cuda", 1.0)),
        (1, "inline", 0.0, ("cpu", 1.0)),
    ],
)
def test_workers_run_on_gpus_if_there_are_any_and_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
    n_gpus: int,
    executor: Literal["ray", "inline"],
    gpus_per_worker: float,
    expected: tuple[str, float],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    config = ExecutionConfig(executor=executor, gpus_per_worker=gpus_per_worker)
    worker = on_device(WorkerSpec("zoo:base", {}, ()), config)
    assert (worker.device, worker.device_share) == expected
