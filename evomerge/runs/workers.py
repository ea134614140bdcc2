"""Where the candidates of an experiment run: how many workers, on what."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

from evomerge.config.experiment import ExecutionConfig
from evomerge.errors import ConfigError, Fault
from evomerge.execution.happenings import Hear, ignore
from evomerge.execution.patience import Patience
from evomerge.execution.placement import Node, n_slots
from evomerge.execution.protocol import Executor, WorkerSpec

__all__ = [
    "devices_per_worker",
    "is_on_cluster",
    "machine_bytes",
    "on_device",
    "require_room",
    "start_executor",
    "worker_bytes",
    "worker_count",
    "worker_device",
]

_CONTAINER_LIMITS = (  # of control groups, version 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def start_executor(config: ExecutionConfig, hear: Hear = ignore) -> Executor:
    """Start the workers of an experiment, which load nothing yet.

    Args:
        config: Of the experiment.
        hear: Hears what happens to them.

    Raises:
        ConfigError: There is no room for them; see ``require_room``.
        StudyError: There is no such cluster, or it lets nobody in.
    """
    require_room(config)
    if config.executor == "inline":
        from evomerge.execution.inline import InlineExecutor

        return InlineExecutor(hear)
    from evomerge.execution.ray import RayExecutor

    gpus = config.gpus_per_worker if _has_gpus(config) else 0
    is_any = is_on_cluster(config) and config.workers == "auto"
    limit = config.trial_timeout
    return RayExecutor(
        None if is_any else worker_count(config),
        gpus_per_worker=gpus,
        address=config.ray_address,
        patience=Patience(math.inf if limit == "off" else limit),
        hear=hear,
    )


def is_on_cluster(config: ExecutionConfig) -> bool:
    """Tell whether workers run on other machines, too."""
    return config.executor == "ray" and config.ray_address != "local"


def require_room(config: ExecutionConfig) -> None:
    """Refuse more workers than this machine's GPUs hold, which Ray would wait for without end.

    On a cluster machines may join, so nothing is too many.

    Raises:
        ConfigError: By the keys of the experiment.
        StudyError: There is no such cluster, or it lets nobody in.
    """
    if is_on_cluster(config) or not _has_gpus(config):
        return
    room, wanted = _room(config), worker_count(config)
    if wanted > room:
        text = f"expected at most {room} workers of {config.gpus_per_worker:g} GPUs on {_n_gpus()}"
        hint = "run fewer workers, or lower gpus_per_worker"
        raise ConfigError(Fault(("execution", "workers"), f"{text}, got {wanted}", hint))


def on_device(worker: WorkerSpec, config: ExecutionConfig) -> WorkerSpec:
    """Resolve where workers run: on GPUs if there are any and the experiment wants them."""
    device, share = worker_device(config)
    n_devices = devices_per_worker(config)
    return dataclasses.replace(worker, device=device, device_share=share, n_devices=n_devices)


def worker_device(config: ExecutionConfig) -> tuple[str, float]:
    """Name the device of a worker, and which part of a GPU's memory is for it."""
    if not _has_gpus(config):
        return "cpu", 1.0
    return "cuda", 1.0 if config.executor == "inline" else min(config.gpus_per_worker, 1.0)


def devices_per_worker(config: ExecutionConfig) -> int:
    """Count the devices over which a candidate is spread."""
    return max(1, int(config.gpus_per_worker)) if _has_gpus(config) else 1


def worker_bytes(config: ExecutionConfig) -> int | None:
    """Tell the memory of a worker, of one GPU if it has several, before anything is there.

    ``None`` on a cluster elsewhere.
    """
    if is_on_cluster(config):
        return None
    device, share = worker_device(config)
    if device == "cpu":
        return machine_bytes() // worker_count(config)
    import torch

    return int(share * torch.cuda.mem_get_info()[1])


def machine_bytes() -> int:
    """Tell the memory of this machine, or of the container that this process runs in."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [file.read_text().strip() for file in _CONTAINER_LIMITS if file.is_file()]
    return min([installed, *(int(limit) for limit in limits if limit.isdigit())])


def worker_count(config: ExecutionConfig) -> int:
    """Resolve ``workers: auto``: as many as the GPUs hold, else one per core.

    On a cluster that is what its machines have room for now.
    """
    if config.executor == "inline":
        return 1
    return config.workers if config.workers != "auto" else max(1, _room(config))


def _room(config: ExecutionConfig) -> int:
    """Count the workers that there is room for, whatever the experiment asks for."""
    gpus = config.gpus_per_worker if _has_gpus(config) else 0
    return n_slots(_nodes(config), gpus)


def _has_gpus(config: ExecutionConfig) -> bool:
    return config.gpus_per_worker > 0 and any(node.n_gpus for node in _nodes(config))


def _nodes(config: ExecutionConfig) -> tuple[Node, ...]:
    """List the machines that workers may run on; on this one workers with GPUs share its cores."""
    if is_on_cluster(config):
        from evomerge.execution.cluster import cluster_nodes

        return cluster_nodes(config.ray_address)
    if config.gpus_per_worker > 0 and (n_gpus := _n_gpus()):
        return (Node("", "", math.inf, n_gpus),)
    return (Node("", "", _n_cores(), 0),)


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _n_cores() -> int:
    """Count the cores this process may use; where the system does not tell (macOS), all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
