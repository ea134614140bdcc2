"""Where a study's time goes, kept across drivers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evomerge.study.folder import write_atomically
from evomerge.study.json_files import read_json_or_warn

__all__ = ["PHASES", "Timing", "read_timing", "utilisation"]

_SECONDS_BETWEEN_SAVES = 1.0
PHASES = ("ask", "merge", "evaluate", "slopes", "tell", "idle")
_WORK = ("merge", "evaluate", "slopes")


class Timing:
    """Seconds per phase, summed over workers and over every driver the study has had.

    ``ask`` and ``tell`` are the driver's, ``merge``, ``evaluate`` and ``slopes`` the workers';
    ``idle`` is what remains of the workers' time.

    Args:
        path: JSON file in the study folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = read_timing(path)
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._started = time.monotonic()
        self._n_workers = 0
        self._saved = float("-inf")

    def start(self, n_workers: int) -> None:
        """Begin to count: the workers are ready."""
        self._started, self._n_workers = time.monotonic(), n_workers

    @property
    def elapsed(self) -> float:
        """Wall-clock seconds of searching, over all drivers."""
        return self._before["elapsed"] + time.monotonic() - self._started

    def add(self, phase: str, seconds: float) -> None:
        """Count seconds of one phase."""
        self._seconds[phase] += seconds

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Count the time spent inside the block."""
        start = time.perf_counter()
        yield
        self.add(phase, time.perf_counter() - start)

    def save_now_and_then(self) -> None:
        """Write the sums unless that was done a moment ago: a write waits for the disk."""
        if time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Write the sums."""
        write_atomically(self._path, json.dumps({**self.total(), "elapsed": self.elapsed}))
        self._saved = time.monotonic()

    def total(self) -> dict[str, float]:
        """Return the seconds of each phase up to now, over all drivers."""
        wall = time.monotonic() - self._started
        busy = sum(self._seconds[phase] for phase in _WORK)
        seconds = {**self._seconds, "idle": max(0.0, wall * self._n_workers - busy)}
        return {phase: self._before[phase] + seconds[phase] for phase in PHASES}


def utilisation(seconds: Mapping[str, float]) -> float:
    """Tell which share of the workers' time went into finished trials; 0 before there is any.

    Args:
        seconds: Of each phase.
    """
    busy = sum(seconds[phase] for phase in _WORK)
    return busy / (busy + seconds["idle"]) if busy > 0 else 0.0


def read_timing(path: Path) -> dict[str, float]:
    """Read the sums; zeros if nothing has been run, or the file is damaged."""
    return read_json_or_warn(path, _sums, "time is counted from zero") or _sums({})


def _sums(content: Mapping[str, float]) -> dict[str, float]:
    sums = {phase: float(content.get(phase, 0.0)) for phase in (*PHASES, "elapsed")}
    if not all(0 <= seconds < math.inf for seconds in sums.values()):
        raise ValueError("expected seconds")
    return sums
