"""Watches the workers of a pool: who does what since when, what is slow, what must be given up."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from evomerge.execution.happenings import Happening, Hear
from evomerge.execution.patience import Patience
from evomerge.execution.protocol import Job, Outcome

__all__ = ["Watch"]


@dataclass
class _Run:
    worker: int
    job: Job
    since: float
    is_slow: bool = False


class Watch:
    """Knows the workers of a pool by number, and the runs of jobs on them by any key.

    Args:
        patience: How long jobs may take.
        hear: Hears what happens.
    """

    def __init__(self, patience: Patience, hear: Hear) -> None:
        self.patience, self._hear = patience, hear
        self._numbers: dict[Hashable, int] = {}
        self._runs: dict[Hashable, _Run] = {}
        self._said: set[str] = set()

    def number(self, worker: Hashable) -> int:
        """Return the number of a worker: the next one if it is new."""
        return self._numbers.setdefault(worker, len(self._numbers))

    def loaded(self, worker: Hashable) -> None:
        """Note that a worker is ready."""
        self._hear(Happening("loaded", self.number(worker)))

    def started(self, run: Hashable, worker: Hashable, job: Job, *, attempt: int) -> None:
        """Note that a worker, which is ready, has been given a job."""
        self._runs[run] = _Run(self.number(worker), job, time.monotonic())
        kind: Literal["started", "retried"] = "started" if attempt == 1 else "retried"
        self._hear(Happening(kind, self.number(worker), job.trial))

    def finished(self, run: Hashable, outcome: Outcome) -> None:
        """Learn from a run how long jobs take."""
        self.patience.learn(outcome, time.monotonic() - self._runs.pop(run).since)

    def warned(self, worker: Hashable, trial: int, said: Iterable[str]) -> None:
        """Pass on what a worker warned of, unless one has said the same."""
        for text in said:
            if text not in self._said:
                self._said.add(text)
                self._hear(Happening("warned", self.number(worker), trial, text))

    def replaced(self, worker: Hashable, why: str, run: Hashable | None = None) -> None:
        """Note that a worker is lost, with its run."""
        trial = self._runs.pop(run).job.trial if run is not None else None
        text = f"the worker of trial {trial} is replaced: {why}" if trial is not None else why
        self._hear(Happening("replaced", self.number(worker), trial, text))

    def overdue(self) -> Iterator[tuple[Hashable, str]]:
        """Report the runs that have become slow, and yield those beyond their limit, with why."""
        now = time.monotonic()
        for key, run in list(self._runs.items()):
            seconds = now - run.since
            if seconds > self.patience.limit_s(run.job):
                yield key, self.patience.limit_text(run.job)
            elif not run.is_slow and seconds > self.patience.slow_s(run.job):
                run.is_slow = True
                text = self.patience.slow_text(run.job, seconds)
                self._hear(Happening("waiting", run.worker, run.job.trial, text))
