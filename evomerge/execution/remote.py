"""What runs in a worker's process on Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from evomerge.cache import cache_id
from evomerge.errors import placed
from evomerge.execution.cluster import node_id, node_name, require_device, require_versions
from evomerge.execution.happenings import warnings_collected
from evomerge.execution.protocol import Job, Outcome, WorkerSpec

__all__ = ["RemoteWorker"]


class RemoteWorker:
    """Builds its worker in ``load``: an actor whose constructor raises hides the type of the error.

    Faults of a worker on a cluster, whose driver names its versions, say on which machine they are.
    """

    def __init__(self) -> None:
        import evomerge.execution.worker  # noqa: F401  seconds that would pass later

        self._worker: Any = None

    def prepare(self, driver: Mapping[str, str]) -> str | None:
        """Compare versions with the driver's; returns which cache is used here."""
        with _on_machine(driver):
            require_versions(driver)
            return cache_id()

    def measure(self, spec: WorkerSpec) -> None:
        """Measure the models for all that share this worker's cache."""
        from evomerge.execution.worker import measure

        with placed(f"machine {node_name()}"):
            measure(spec)

    def place(self) -> tuple[int, str]:
        """Tell the process id, and Ray's id of the machine."""
        return os.getpid(), node_id()

    def load(self, spec: WorkerSpec, driver: Mapping[str, str] | None) -> None:
        """Load models and tasks."""
        from evomerge.execution.worker import Worker

        with _on_machine(driver):
            if driver is not None:
                require_versions(driver)
            require_device(spec.device)
            self._worker = Worker(spec)

    def run(self, job: Job) -> tuple[Outcome, list[str]]:
        """Run a job; returns its outcome, and what was logged as a warning on the way."""
        with warnings_collected() as said:
            return self._worker.run(job), said


def _on_machine(driver: Mapping[str, str] | None) -> Any:
    """Say on which machine faults are, where there are several."""
    return nullcontext() if driver is None else placed(f"machine {node_name()}")
