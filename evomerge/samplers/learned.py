"""What a finished trial taught about its params, in full or in part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

__all__ = ["PARTIAL", "learned_values"]

PARTIAL = "partial"  # trial user attribute: ``values``, ``stderr`` and ``n_items`` per objective


def learned_values(trial: FrozenTrial) -> Sequence[float] | None:
    """Return the values a sampler may learn from, one per objective.

    Returns:
        The values of a complete trial. Of one that was dropped from a race what its values would
        have been, predicted from the items it was scored on: without them a sampler would ask for
        the like of it again and again. ``None`` if nothing finite is known.
    """
    if trial.state is TrialState.COMPLETE:
        values = trial.values
    elif trial.state is TrialState.PRUNED and PARTIAL in trial.user_attrs:
        values = trial.user_attrs[PARTIAL]["values"]
    else:
        return None
    return values if all(map(math.isfinite, values)) else None
