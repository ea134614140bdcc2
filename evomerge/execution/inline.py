"""Jobs in the driver's own process, one at a time: for debugging and small runs."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from evomerge.execution.happenings import Hear, ignore
from evomerge.execution.interrupts import interrupts_kept
from evomerge.execution.patience import Patience
from evomerge.execution.protocol import Job, Outcome, WorkerSpec
from evomerge.execution.watching import Watch

if TYPE_CHECKING:
    from evomerge.execution.worker import Worker

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """One worker in this process; see ``Executor``.

    A job that hangs is reported, and waited for: no other process could take its place.

    Args:
        hear: Hears what happens.
        patience: How long jobs may take; absent: any time.
    """

    def __init__(self, hear: Hear = ignore, patience: Patience | None = None) -> None:
        self._worker: Worker | None = None
        self._waiting: deque[Job] = deque()
        self._watch = Watch(patience or Patience(math.inf), hear)

    def load(self, spec: WorkerSpec) -> None:
        """See ``Executor``."""
        from evomerge.execution.worker import Worker

        self._worker = Worker(spec)
        self._watch.loaded(self)

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
        job = self._waiting.popleft()
        with self._watched(job), interrupts_kept():
            outcome = self._worker.run(job)
        self._watch.finished(job.trial, outcome)
        return outcome

    @contextmanager
    def _watched(self, job: Job) -> Iterator[None]:
        """Look from another thread at whether a job takes longer than usual."""
        self._watch.started(job.trial, self, job, attempt=1)
        slow_s = self._watch.patience.slow_s(job)
        timer = threading.Timer(slow_s, lambda: list(self._watch.overdue()))
        if slow_s < threading.TIMEOUT_MAX:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """See ``Executor``."""
        self._waiting.clear()
