"""The trade-offs a study found: which trials compete, the front, its hypervolume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge import pareto
from evomerge.analysis.once import once
from evomerge.arrays import FloatArray
from evomerge.origins import is_baseline
from evomerge.study.records import Objective, StudyRecord, TrialRecord

__all__ = [
    "Box",
    "baselines",
    "complete",
    "contenders",
    "front",
    "hypervolume",
    "hypervolume_history",
    "non_dominated",
    "oriented",
    "scaled_values",
]

_AT_ONCE = 128  # trials that are held against the front so far, before one by one


@once
def complete(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """List the trials that can be compared: complete, every value finite."""
    return tuple(
        t for t in study.trials if t.state == "complete" and all(map(math.isfinite, t.values))
    )


@once
def contenders(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """List the complete trials that may win: the feasible ones, else the least infeasible."""
    trials = complete(study)
    least = min((t.violation for t in trials), default=0.0)
    return tuple(t for t in trials if t.violation == least)


@once
def baselines(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """List the complete baselines: base, experts and the uniform average."""
    return tuple(t for t in complete(study) if is_baseline(t.origin))


@once
def front(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Find the non-dominated complete trials that violate no constraint.

    Where every trial violates one, the least infeasible stand in. Baselines count: an expert that
    no merge beats on its own task is on the front. Of trials with equal values all are kept.

    Returns:
        In order of trial number.
    """
    return non_dominated(contenders(study), study.objectives)


@once
def hypervolume(study: StudyRecord) -> float:
    """Measure the front by one number: larger is better, 0 is no better than the worst baseline.

    Each objective is scaled so that 0 is the worst baseline (base, experts, uniform average) and 1
    the best. So 1.0 is the volume of a single model as good on every objective as the best
    baseline there, and more than 1.0 takes beating some of them. The baselines run first, which
    makes the number comparable within a study at any time, and between studies of the same
    models and items. An objective on which the baselines do not differ (or a study without
    baselines) is scaled by the worst and best complete trial instead: then the number is
    comparable only within this record.

    Returns:
        0 when nothing is complete. Infeasible trials add nothing.
    """
    trials = complete(study)
    feasible = [trial for trial in trials if trial.is_feasible]
    if not feasible:
        return 0.0
    box = _hypervolume_box(study, trials)
    points = box.scaled(oriented(feasible, study.objectives))
    best = points[pareto.non_dominated(points)]
    _, firsts = np.unique(best, axis=0, return_index=True)
    return _volume(best[np.sort(firsts)])


@once
def hypervolume_history(study: StudyRecord) -> list[tuple[int, float]]:
    """Follow `hypervolume` over the trials, all on the scale of the whole record.

    Returns:
        (trial number, hypervolume of this and all earlier trials) per complete trial; never falls.
    """
    trials = complete(study)
    if not trials:
        return []
    points = scaled_values(study, trials)
    volumes, feasible = np.zeros(len(trials)), np.array([t.is_feasible for t in trials])
    archive = np.empty((0, points.shape[1]))
    for start in range(0, len(points), _AT_ONCE):
        block = points[start : start + _AT_ONCE]
        is_new = feasible[start : start + _AT_ONCE] & ~_covered(block, archive)
        for i in np.flatnonzero(is_new).tolist():
            if not _covered(block[[i]], archive)[0]:
                archive = np.vstack([archive[~(archive <= block[i]).all(axis=1)], block[i]])
                volumes[start + i] = _volume(archive)
    rising = np.maximum.accumulate(volumes).tolist()  # rounding must not show a fall
    return list(zip([trial.number for trial in trials], rising, strict=True))


def _covered(points: FloatArray, archive: FloatArray) -> NDArray[np.bool_]:
    """Tell (n,) which points some point of an archive is no worse than in anything."""
    return np.asarray(np.any(np.all(archive >= points[:, None], axis=2), axis=1))


def scaled_values(study: StudyRecord, trials: Sequence[TrialRecord]) -> FloatArray:
    """Put values on the scale of `hypervolume`: 0 the worst baseline, 1 the best, larger is better.

    Args:
        study: Whose baselines set the scale.
        trials: Complete trials of it.

    Returns:
        (trials, objectives), dimensionless.
    """
    return _hypervolume_box(study, complete(study)).scaled(oriented(trials, study.objectives))


@dataclass(frozen=True)
class Box:
    """Two corners that scale each objective: ``low`` becomes 0 and ``high`` 1.  Shapes: (k,)."""

    low: FloatArray
    high: FloatArray

    @classmethod
    def around(cls, values: FloatArray) -> Box:
        """Make the smallest box that holds values (n, k)."""
        return cls(values.min(axis=0), values.max(axis=0))

    def scaled(self, values: FloatArray) -> FloatArray:
        """Scale values (n, k); an objective without extent keeps its unit."""
        side = self.high - self.low
        return (values - self.low) / np.where(side > 0, side, 1.0)


def _hypervolume_box(study: StudyRecord, trials: Sequence[TrialRecord]) -> Box:
    """Make the box from the complete trials of a study."""
    everything = Box.around(oriented(trials, study.objectives))
    reference = [trial for trial in trials if is_baseline(trial.origin)]
    if not reference:
        return everything
    box = Box.around(oriented(reference, study.objectives))
    differs = box.high > box.low
    return Box(
        np.where(differs, box.low, everything.low), np.where(differs, box.high, everything.high)
    )


def _volume(points: FloatArray) -> float:
    """Volume between the origin and the points (n, k); points not above it in all add nothing."""
    return pareto.volume(points, np.zeros(points.shape[1]))


def non_dominated(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[TrialRecord, ...]:
    """Leave the trials that no other one beats, in order of trial number."""
    keep = pareto.non_dominated(oriented(trials, objectives))
    chosen = [trial for trial, kept in zip(trials, keep, strict=True) if kept]
    return tuple(sorted(chosen, key=lambda t: t.number))


def oriented(trials: Iterable[TrialRecord], objectives: Sequence[Objective]) -> FloatArray:
    """Values (trials, objectives), larger is better."""
    signs = np.array([o.sign for o in objectives])
    values = np.array([t.values for t in trials], dtype=np.float64).reshape(-1, len(signs))
    oriented: FloatArray = values * signs
    return oriented
