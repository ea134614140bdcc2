"""How many workers run on this machine, and on what."""

from __future__ import annotations

import os
from typing import Literal

import pytest
import torch

from evomerge.config.experiment import ExecutionConfig, Experiment
from evomerge.errors import ConfigError
from evomerge.execution import cluster
from evomerge.execution.placement import Node
from evomerge.execution.protocol import WorkerSpec
from evomerge.runs.loaded import Loaded
from evomerge.runs.workers import devices_per_worker, on_device, require_room, worker_count


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


def test_what_counts_on_a_cluster_are_its_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = (Node("a", "head", 8, 0), Node("b", "10.0.0.2", 16, 4), Node("c", "10.0.0.3", 16, 4))
    monkeypatch.setattr(cluster, "cluster_nodes", lambda address: machines)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # of the driver's machine
    config = ExecutionConfig(ray_address="10.0.0.1:6379", gpus_per_worker=0.4)
    worker = on_device(WorkerSpec("zoo:base", {}, ()), config)
    assert (worker.device, worker.device_share, worker_count(config)) == ("cuda", 0.4, 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(cluster, "cluster_nodes", lambda address: machines[:1])
    assert on_device(worker, config).device == "cpu"
    assert worker_count(config) == 8


def test_more_workers_than_the_gpus_hold_are_refused_instead_of_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert worker_count(ExecutionConfig(gpus_per_worker=0.4)) == 8
    assert worker_count(ExecutionConfig(gpus_per_worker=0)) == len(os.sched_getaffinity(0))
    require_room(ExecutionConfig(gpus_per_worker=0.4, workers=8))
    with pytest.raises(ConfigError, match=r"execution.workers: expected at most 8 .*, got 9"):
        require_room(ExecutionConfig(gpus_per_worker=0.4, workers=9))


def test_a_worker_with_more_gpus_than_there_are_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    four = ExecutionConfig(gpus_per_worker=4)
    assert (worker_count(four), devices_per_worker(four)) == (1, 4)
    assert on_device(WorkerSpec("zoo:base", {}, ()), four).n_devices == 4
    for executor in ("ray", "inline"):
        with pytest.raises(ConfigError, match="expected at most 0 workers of 8 GPUs on 4, got 1"):
            require_room(ExecutionConfig(gpus_per_worker=8, executor=executor))


@pytest.mark.parametrize(
    ("gpus", "space", "expected"),
    [
        (1.5, "global_linear", "expected a share of a GPU or a whole number of them, got 1.5"),
        (16, "global_linear", r"expected at most one GPU for each of \d+ layers, got 16"),
        (2, "dataflow_slots", "data-flow paths, whose layers are not spread, got 2"),
    ],
)
def test_gpus_over_which_no_candidate_can_be_spread_are_refused(
    gpus: float, space: str, expected: str
) -> None:
    models = {"base": "zoo:base", "experts": {"math": "zoo:math"}}
    content = {
        "models": models,
        "search_space": space,
        "evaluators": ["zoo"],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
        "execution": {"gpus_per_worker": gpus},
    }
    with pytest.raises(ConfigError, match=rf"execution.gpus_per_worker: .*{expected}"):
        Loaded.of(Experiment.from_dict(content))
