"""What a finished trial taught about its params, in full or in part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

__all__ = [
    "CLIMB",
    "CLIMBED",
    "CLIMB_ERROR",
    "CONSTRAINTS",
    "PARTIAL",
    "learned_stderr",
    "learned_values",
]

CLIMB = "climb"  # trial user attribute: the steps along slopes that it takes once it is scored
CLIMBED = "climbed"  # trial user attribute: where they ended, its ``params`` at least
CLIMB_ERROR = "climb_error"  # trial user attribute: why there is no such end, in one line
CONSTRAINTS = "constraints"  # trial user attribute: numbers, feasible if none is above 0
PARTIAL = "partial"  # trial user attribute: ``values``, ``stderr`` and ``n_items`` per objective


def learned_values(trial: FrozenTrial, *, constrained: bool) -> Sequence[float] | None:
    """Return the values a sampler may learn from, one per objective.

    Args:
        trial: Finished or not.
        constrained: Whether values count only beside constraints, which are not predicted.

    Returns:
        The values of a complete trial. Of one that was dropped from a race what its values would
        have been, predicted from the items it was scored on: without them a sampler would ask for
        the like of it again and again. ``None`` if nothing finite is known, or whether the trial is
        feasible is not.
    """
    if constrained and CONSTRAINTS not in trial.user_attrs:
        return None
    if trial.state is TrialState.COMPLETE:
        values = trial.values
    elif trial.state is TrialState.PRUNED and PARTIAL in trial.user_attrs:
        values = trial.user_attrs[PARTIAL]["values"]
    else:
        return None
    return values if all(map(math.isfinite, values)) else None


def learned_stderr(trial: FrozenTrial) -> Sequence[float] | None:
    """Return how unsure the learned values are, one standard error per objective.

    ``None`` for a trial that was scored in full: its values are what is searched.
    """
    if trial.state is TrialState.PRUNED and PARTIAL in trial.user_attrs:
        stderr: Sequence[float] = trial.user_attrs[PARTIAL]["stderr"]
        return stderr
    return None
