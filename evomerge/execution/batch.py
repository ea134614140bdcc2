"""Runs a batch of jobs with every worker busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from evomerge.execution.protocol import Executor, Job, Outcome

__all__ = ["run_all"]


def run_all(executor: Executor, jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Run jobs, and yield each outcome when it comes, in any order.

    Args:
        executor: Idle; nothing else may be submitted until the last outcome has come.
        jobs: Submitted in order.
    """
    waiting, n_in_flight = deque(jobs), 0
    while waiting or n_in_flight:
        while waiting and n_in_flight < executor.n_workers:
            executor.submit(waiting.popleft())
            n_in_flight += 1
        if (outcome := executor.next_outcome()) is not None:
            yield outcome
            n_in_flight -= 1
