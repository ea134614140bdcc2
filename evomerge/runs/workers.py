"""Where the candidates of an experiment run: how many workers, on what."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

from evomerge.config.experiment import ExecutionConfig
from evomerge.execution.happenings import Hear, ignore
from evomerge.execution.patience import Patience
from evomerge.execution.protocol import Executor, WorkerSpec

__all__ = [
    "machine_bytes",
    "on_device",
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
    """
    if config.executor == "inline":
        from evomerge.execution.inline import InlineExecutor

        return InlineExecutor(hear)
    from evomerge.execution.ray import RayExecutor

    gpus = config.gpus_per_worker if _has_gpus(config) else 0
    limit = config.trial_timeout
    return RayExecutor(
        worker_count(config),
        gpus_per_worker=gpus,
        address=config.ray_address,
        patience=Patience(math.inf if limit == "off" else limit),
        hear=hear,
    )


def on_device(worker: WorkerSpec, config: ExecutionConfig) -> WorkerSpec:
    """Resolve where workers run: on GPUs if there are any and the experiment wants them."""
    device, share = worker_device(config)
    return dataclasses.replace(worker, device=device, device_share=share)


def worker_device(config: ExecutionConfig) -> tuple[str, float]:
    """Name the device of a worker, and which part of a GPU's memory is for it."""
    if not _has_gpus(config):
        return "cpu", 1.0
    return "cuda", 1.0 if config.executor == "inline" else min(config.gpus_per_worker, 1.0)


def worker_bytes(config: ExecutionConfig) -> int | None:
    """Tell the memory of a worker before anything is there; ``None`` on a cluster elsewhere."""
    if config.executor == "ray" and config.ray_address != "local":
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
    """Resolve ``workers: auto``: as many as the GPUs hold, else one per core."""
    if config.executor == "inline":
        return 1
    if config.workers != "auto":
        return config.workers
    if _has_gpus(config):
        return max(1, int(_n_gpus() / config.gpus_per_worker))
    return _n_cores()


def _has_gpus(config: ExecutionConfig) -> bool:
    return config.gpus_per_worker > 0 and _n_gpus() > 0


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _n_cores() -> int:
    """Count the cores this process may use; where the system does not tell (macOS), all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
