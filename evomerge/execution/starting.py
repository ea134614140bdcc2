"""Ray, started on this machine or joined as a cluster, and kept quiet."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import ray

from evomerge.errors import StudyError
from evomerge.execution.cluster import join

__all__ = ["session_folder", "start_ray"]

_OBJECT_STORE_BYTES = 128 << 20  # recipes and scores are small; experts are memory-mapped files
_STARTS = 3  # on a machine so busy that half a minute is not enough
_TOO_BUSY = "timed out during startup"  # what Ray says then


def start_ray(address: str, n_workers: int | None) -> None:
    """Start Ray on this machine, or join a cluster.

    Args:
        address: ``local``, or of the cluster.
        n_workers: How many cores Ray may count on this machine; ``None``: all.

    Raises:
        StudyError: The machine is too busy, or the cluster cannot be joined.
    """
    _silence_ray()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
    if address != "local":
        join(address)
        return
    os.environ.setdefault("RAY_worker_niceness", "0")  # by Ray's 15 any other process goes first
    for left in reversed(range(_STARTS)):
        try:
            _start_here(n_workers)
            return
        except Exception as err:  # Ray's own has no type
            if _TOO_BUSY not in str(err):
                raise
            if not left:
                raise StudyError(
                    f"expected Ray to start on this machine, got {_STARTS} times: "
                    f"{str(err).splitlines()[0]}; the machine may be too busy: try again later"
                ) from err


def _start_here(n_workers: int | None) -> None:
    ray.init(
        address="local",
        num_cpus=n_workers,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def session_folder() -> Path:
    """Find the folder of this Ray's logs: one of two parts of Ray used that are not public."""
    node: Any = ray._private.worker._global_node
    return Path(node.get_session_dir_path())


def _silence_ray() -> None:
    """Let Ray not report every dead worker on stdout whatever its log settings say: we log it.

    The other part of Ray used that is not public.
    """
    ray._private.worker.print_to_stdstream = lambda *_args, **_kwargs: None
