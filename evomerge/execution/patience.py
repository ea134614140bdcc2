"""How long a job may take, by those that have finished."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import Literal

from evomerge.execution.protocol import Job, Outcome, Scored

__all__ = ["Patience"]

_ENOUGH = 3  # finished jobs of a kind; before, nothing is known
_SLOW, _SLOW_AT_LEAST_S = 4.0, 60.0  # times the longest; what is worth a line
_HUNG, _HUNG_AT_LEAST_S = 20.0, 600.0  # what no job of its kind takes
_REMEMBERED = 256  # jobs of a kind

_Kind = tuple[str, int]


class Patience:
    """Tells when a job takes longer than usual, and when it will not come back.

    Jobs are compared with those on the same split that climb as far. What ended early, or was
    scored before, says nothing of how long others take.

    Args:
        limit_s: Seconds that any job may take; ``auto``: twenty times the longest of its kind, at
            least ten minutes, and any time until three have finished; ``inf``: any time.
        scale: Multiplies the least times, for short jobs.
    """

    def __init__(self, limit_s: float | Literal["auto"] = "auto", scale: float = 1.0) -> None:
        self._limit_s, self._scale = limit_s, scale
        self._seen: dict[_Kind, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def learn(self, outcome: Outcome, seconds: float) -> None:
        """Remember how long a job took, from when its worker was ready."""
        if isinstance(outcome, Scored) and outcome.seconds.get("merge", 0.0) > 0:
            self._seen[_kind(outcome.job)].append(seconds)

    def longest(self, job: Job) -> float:
        """Tell how long jobs like this took at most; ``inf`` while too few have finished."""
        seen = self._seen[_kind(job)]
        return max(seen) if len(seen) >= _ENOUGH else math.inf

    def slow_s(self, job: Job) -> float:
        """Seconds after which it takes longer than usual."""
        return max(_SLOW * self.longest(job), _SLOW_AT_LEAST_S * self._scale)

    def limit_s(self, job: Job) -> float:
        """Seconds after which its worker is given up."""
        if self._limit_s != "auto":
            return self._limit_s
        return max(_HUNG * self.longest(job), _HUNG_AT_LEAST_S * self._scale)

    def slow_text(self, job: Job, seconds: float) -> str:
        """Say in one line that a job takes longer than usual."""
        return (
            f"trial {job.trial} has run for {seconds:.0f} s, others took {self.longest(job):.0f} s "
            f"at most; it is waited for{self._until(job)}"
        )

    def limit_text(self, job: Job) -> str:
        """Say what limit a job has reached."""
        longest = self.longest(job)
        why = "" if longest == math.inf else f", others took {longest:.0f} s at most"
        return f"it ran for more than {self.limit_s(job):.0f} s{why}"

    def _until(self, job: Job) -> str:
        limit = self.limit_s(job)
        return "" if limit == math.inf else f" until {limit:.0f} s (execution.trial_timeout)"


def _kind(job: Job) -> _Kind:
    return job.split, 0 if job.climb is None else job.climb.n_items
