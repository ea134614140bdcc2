"""What comes back from workers, before anything is decided by it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from evomerge.execution.protocol import Failed, Outcome, Scored
from evomerge.study.constraints import Constraint
from evomerge.study.records import Objective

__all__ = ["checked_outcome"]


def checked_outcome(outcome: Outcome, wanted: Iterable[Objective | Constraint]) -> Outcome:
    """Turn a score that is missing or no number into a failure: nothing is compared by such.

    Args:
        outcome: Of one job.
        wanted: The metrics that count.
    """
    if not isinstance(outcome, Scored):
        return outcome
    metrics = outcome.scores.metrics
    for one in wanted:
        if one.metric not in metrics.get(one.task, {}):
            return Failed(outcome.job, f"task {one.task} returned no metric {one.metric}")
        value = metrics[one.task][one.metric].value
        if not math.isfinite(value):
            return Failed(outcome.job, f"{one.task} {one.metric} is {value}")
    return outcome
