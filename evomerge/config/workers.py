"""Where the candidates of an experiment run: how many workers, on what."""

from __future__ import annotations

import dataclasses
import os

from evomerge.config.experiment import ExecutionConfig
from evomerge.execution.protocol import Executor, WorkerSpec

__all__ = ["make_executor", "on_device", "worker_count"]


def make_executor(worker: WorkerSpec, config: ExecutionConfig) -> Executor:
    """Start the workers of an experiment.

    Args:
        worker: What each loads.
        config: How many, and where.
    """
    worker = on_device(worker, config)
    if config.executor == "inline":
        from evomerge.execution.inline import InlineExecutor

        return InlineExecutor(worker)
    from evomerge.execution.ray import RayExecutor

    return RayExecutor(
        worker,
        worker_count(config),
        gpus_per_worker=0 if worker.device == "cpu" else config.gpus_per_worker,
        address=config.ray_address,
    )


def on_device(worker: WorkerSpec, config: ExecutionConfig) -> WorkerSpec:
    """Resolve where workers run: on GPUs if there are any and the experiment wants them."""
    import torch

    if not torch.cuda.device_count() or config.gpus_per_worker == 0:
        return dataclasses.replace(worker, device="cpu")
    share = 1.0 if config.executor == "inline" else min(config.gpus_per_worker, 1.0)
    return dataclasses.replace(worker, device="cuda", device_share=share)


def worker_count(config: ExecutionConfig) -> int:
    """Resolve ``workers: auto``: as many as the GPUs hold, else one per core."""
    import torch

    if config.executor == "inline":
        return 1
    if config.workers != "auto":
        return config.workers
    n_gpus = torch.cuda.device_count()
    if n_gpus and config.gpus_per_worker > 0:
        return max(1, int(n_gpus / config.gpus_per_worker))
    return _n_cores()


def _n_cores() -> int:
    """Count the cores this process may use; where the system does not tell (macOS), all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
