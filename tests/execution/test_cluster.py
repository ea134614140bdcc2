"""A Ray cluster of several machines, all on this one, each with models of its own."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from evomerge.errors import CheckpointError, StudyError
from evomerge.execution.cluster import (
    join,
    require_device,
    require_packages,
    require_versions,
    versions,
)
from evomerge.execution.contents import ModelContents
from evomerge.execution.protocol import Executor, Scored, WorkerSpec
from evomerge.execution.ray import RayExecutor
from evomerge.merging.sources import Sources
from tests.execution.test_ray import job, spec

HUB_ID, COMMIT = "me/base", "a" * 40


def hub_folder(home: Path) -> Path:
    """Where the Hub's client looks for a model below ``HF_HOME``."""
    folder = home / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return folder / "snapshots" / COMMIT


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, tiny_family: dict[str, Path]) -> list[Path]:
    """What two machines have in their caches of the Hub: one model by name, of other content."""
    found = [tmp_path_factory.mktemp(name) for name in ("here", "there")]
    for home, model in zip(found, ("base", "one"), strict=True):
        shutil.copytree(tiny_family[model], hub_folder(home))
    return found


@pytest.fixture(scope="module")
def cluster(homes: list[Path]) -> Iterator[Cluster]:
    """A head without workers, where the driver runs, and two machines of one worker each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for n_gpus, home in enumerate(homes):  # the second one says that it has a GPU
        made.add_node(num_cpus=1, num_gpus=n_gpus, env_vars={"HF_HOME": str(home)})
    yield made
    made.shutdown()


@pytest.mark.survival
def test_a_worker_is_put_where_a_gpu_is_and_refuses_a_model_of_other_content(
    cluster: Cluster, homes: list[Path]
) -> None:
    """The driver's machine has no GPU; the one that Ray counts one for has another base."""
    here = Sources(str(hub_folder(homes[0])), {})
    wanted = WorkerSpec(HUB_ID, {}, (), contents=ModelContents.of(here))
    executor = RayExecutor(None, gpus_per_worker=0.6, address=cluster.address)
    try:
        with pytest.raises(CheckpointError) as caught:
            executor.load(wanted)
    finally:
        executor.close()
    (fault, *_) = caught.value.faults
    assert fault.place.startswith("machine ")
    assert fault.path == ("base",)
    assert fault.text.startswith(f"expected {hub_folder(homes[1])}")


@pytest.mark.survival
def test_a_search_outlives_a_machine_and_uses_one_that_joins(cluster: Cluster) -> None:
    executor = RayExecutor(None, address=cluster.address)
    try:
        executor.load(spec())
        assert executor.n_workers == 2
        executor.submit(job(0))
        executor.submit(job(1))
        cluster.remove_node(list(cluster.worker_nodes)[-1], allow_graceful=False)
        told, n = sorted(next_outcome(executor).job.trial for _ in range(2)), 2
        while executor.n_workers > 1:  # a worker may outlive its machine for a moment
            executor.submit(job(n, 0.001 * n))
            told.append(next_outcome(executor).job.trial)
            n += 1
        cluster.add_node(num_cpus=1)
        while executor.n_workers < 2:
            executor.submit(job(n, 0.001 * n))
            told.append(next_outcome(executor).job.trial)
            n += 1
        assert told == list(range(n))
    finally:
        executor.close()


@pytest.mark.survival
def test_a_search_waits_for_a_machine_where_none_is_left(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    said = "no machine of the cluster has room for a worker; waiting for one"

    executor = RayExecutor(None, address=cluster.address)

    def search() -> list[int]:
        told: list[int] = []
        while said not in caplog.text:  # a worker may outlive its machine for a moment
            executor.submit(job(len(told)))
            told.append(next_outcome(executor).job.trial)
        return told

    try:
        executor.load(spec())
        for machine in list(cluster.worker_nodes):
            cluster.remove_node(machine, allow_graceful=False)
        with ThreadPoolExecutor(1) as pool:  # Ray lets machines join in the main thread only
            searched = pool.submit(search)
            while said not in caplog.text:
                time.sleep(0.1)
            cluster.add_node(num_cpus=1)
            told = searched.result()
        assert told == list(range(len(told)))
    finally:
        executor.close()


def next_outcome(executor: Executor) -> Scored:
    while (outcome := executor.next_outcome()) is None:
        pass
    assert isinstance(outcome, Scored), outcome
    return outcome


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_a_core_does_not_stand_in_for_a_gpu_that_only_ray_sees() -> None:
    with pytest.raises(StudyError, match="to see the GPU that Ray counts, got none"):
        require_device("cuda")
    require_device("cpu")


def test_other_versions_than_the_drivers_are_named() -> None:
    require_versions(versions())
    other = {**versions(), "torch": "1.0", "python": "3.1"}
    with pytest.raises(StudyError, match=r"expected python 3.1, torch 1.0 as the driver has, got"):
        require_versions(other)


@pytest.mark.parametrize(
    ("environ", "hint"),
    [
        ({}, "set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}, "is it the token that the cluster"),
    ],
)
def test_a_cluster_that_lets_nobody_in_is_one_line(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], hint: str
) -> None:
    def refused(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", refused)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    server = socket.create_server(("127.0.0.1", 0))
    with server, pytest.raises(StudyError, match=hint) as caught:
        join(f"127.0.0.1:{server.getsockname()[1]}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "expected a Ray cluster at 127.0.0.1:1, got: Connection refused"),
        ("ray://127.0.0.1:10001", "expected local, auto or HOST:PORT"),
        ("somewhere", "expected local, auto or HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_said_at_once(address: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        join(address)


def test_a_package_that_a_machine_lacks_is_named() -> None:
    said = (
        "the actor failed to import on the worker:\n  ModuleNotFoundError: No module named 'mine'"
    )
    with pytest.raises(StudyError, match=r"driver's packages .*: No module named 'mine'$"):
        require_packages(RuntimeError(said))
    require_packages(RuntimeError("the actor died"))
