"""What trials cost, in evaluations: one is a candidate that is scored on every search item.

An item of a climb goes forward and backward, which takes as long as three that go forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["climb_evaluations", "is_used_up", "summed"]

_PASSES = 3


def climb_evaluations(n_items: int, n_search_items: int) -> float:
    """Count what a climb adds to the evaluation of its trial.

    Args:
        n_items: Items that go forward and backward, over all steps and objectives.
        n_search_items: Items of the search split.
    """
    return _PASSES * n_items / n_search_items


def summed(evaluations: Iterable[float]) -> float:
    """Add up evaluations, to a millionth: shares such as 1/3 make up whole ones again."""
    return round(math.fsum(evaluations), 6)


def is_used_up(evaluations: float, n_trials: int) -> bool:
    """Tell whether a budget of trials is too small for one more; a part counts as a whole."""
    return math.ceil(evaluations) >= n_trials
