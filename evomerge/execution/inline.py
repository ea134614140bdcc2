"""Jobs in the driver's own process, one at a time: for debugging and small runs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from evomerge.execution.interrupts import interrupts_kept
from evomerge.execution.protocol import Job, Outcome, WorkerSpec

if TYPE_CHECKING:
    from evomerge.execution.worker import Worker

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """One worker in this process; see ``Executor``."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._waiting: deque[Job] = deque()

    def load(self, spec: WorkerSpec) -> None:
        """See ``Executor``."""
        from evomerge.execution.worker import Worker

        self._worker = Worker(spec)

    @property
    def n_workers(self) -> int:
        """See ``Executor``."""
        return 1

    def submit(self, job: Job) -> None:
        """See ``Executor``."""
        self._waiting.append(job)

    def next_outcome(self) -> Outcome:
        """See ``Executor``."""
        assert self._worker is not None, "it was loaded"
        with interrupts_kept():
            return self._worker.run(self._waiting.popleft())

    def close(self) -> None:
        """See ``Executor``."""
        self._waiting.clear()
