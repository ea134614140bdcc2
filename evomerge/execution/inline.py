"""Jobs in the driver's own process, one at a time: for debugging and small runs."""

from __future__ import annotations

from collections import deque

from evomerge.execution.interrupts import interrupts_kept
from evomerge.execution.protocol import Job, Outcome, WorkerSpec
from evomerge.execution.worker import Worker

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """One worker in this process; see ``Executor``.

    Args:
        spec: What the worker loads.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker = Worker(spec)
        self._waiting: deque[Job] = deque()

    @property
    def n_workers(self) -> int:
        """See ``Executor``."""
        return 1

    def submit(self, job: Job) -> None:
        """See ``Executor``."""
        self._waiting.append(job)

    def next_outcome(self) -> Outcome:
        """See ``Executor``."""
        with interrupts_kept():
            return self._worker.run(self._waiting.popleft())

    def close(self) -> None:
        """See ``Executor``."""
        self._waiting.clear()
