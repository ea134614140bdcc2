"""The trade-offs a study found: front, hypervolume, knee, and picking one trial by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

from evomerge.errors import StudyError
from evomerge.study.records import Objective, StudyRecord, TrialRecord, has_mean, merits

__all__ = [
    "baselines",
    "complete",
    "contenders",
    "front",
    "hypervolume",
    "hypervolume_history",
    "is_handed_on",
    "is_single_model",
    "knee",
    "pick",
    "scaled_values",
]

FloatArray = NDArray[np.float64]


def complete(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """List the trials that can be compared: complete, every value finite."""
    return tuple(
        t for t in study.trials if t.state == "complete" and all(map(math.isfinite, t.values))
    )


def contenders(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """List the complete trials that may win: the feasible ones, else the least infeasible."""
    trials = complete(study)
    least = min((t.violation for t in trials), default=0.0)
    return tuple(t for t in trials if t.violation == least)


def is_single_model(origin: str) -> bool:
    """Say whether an origin is the base or one expert as they are, rather than a merge."""
    return origin == "base" or origin.startswith("expert:")


def is_handed_on(origin: str) -> bool:
    """Say whether an origin is a merge that an earlier stage handed on as it is."""
    return origin.startswith("winner:")


def baselines(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """List the complete baselines: base, experts and the uniform average."""
    return tuple(t for t in complete(study) if is_single_model(t.origin) or t.origin == "uniform")


def front(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Find the non-dominated complete trials that violate no constraint.

    Where every trial violates one, the least infeasible stand in. Baselines count: an expert that
    no merge beats on its own task is on the front. Of trials with equal values all are kept.

    Returns:
        In order of trial number.
    """
    return _non_dominated(contenders(study), study.objectives)


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

    Source:
        Zitzler & Thiele 1999, "Multiobjective evolutionary algorithms: a comparative case study".
    """
    history = hypervolume_history(study)
    return history[-1][1] if history else 0.0


def hypervolume_history(study: StudyRecord) -> list[tuple[int, float]]:
    """Follow `hypervolume` over the trials, all on the scale of the whole record.

    Returns:
        (trial number, hypervolume of this and all earlier trials) per complete trial; never falls.
    """
    trials = complete(study)
    if not trials:
        return []
    history: list[tuple[int, float]] = []
    archive = np.empty((0, len(study.objectives)))
    volume = 0.0
    for trial, point in zip(trials, scaled_values(study, trials), strict=True):
        # A covered point changes nothing; without this check long studies cost seconds.
        if trial.is_feasible and not (archive >= point).all(axis=1).any():
            archive = np.vstack([archive[~(archive <= point).all(axis=1)], point])
            # Both are monotone in exact arithmetic; max() keeps rounding from showing a fall.
            volume = max(volume, _volume(archive))
        history.append((trial.number, volume))
    return history


def scaled_values(study: StudyRecord, trials: Sequence[TrialRecord]) -> FloatArray:
    """Put values on the scale of `hypervolume`: 0 the worst baseline, 1 the best, larger is better.

    Args:
        study: Whose baselines set the scale.
        trials: Complete trials of it.

    Returns:
        (trials, objectives), dimensionless.
    """
    return _hypervolume_box(study).scaled(_oriented(trials, study.objectives))


def knee(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> TrialRecord:
    """Find the best compromise: the front's bulge farthest above the plane through its extremes.

    Objectives are scaled by the front's own range (worst 0, best 1). The plane cuts every axis at
    1, so the distance above it grows with the sum of the scaled values: the knee is the trial of
    the best scaled mean, which also answers for one objective and for fronts of one or two
    trials. Of equals the most balanced (largest worst value) wins, then the earliest.

    Args:
        trials: Complete, at least one; dominated ones are left out first.
        objectives: One per value.

    Raises:
        StudyError: No trial to choose from.

    Source:
        Das 1999, "On characterizing the knee of the Pareto curve based on normal-boundary
        intersection", with the plane through the axis intercepts instead of the extreme points
        (the same line for two objectives).
    """
    candidates = _non_dominated(trials, objectives)
    if not candidates:
        raise StudyError("expected at least one complete trial to choose from, got none")
    values = _oriented(candidates, objectives)
    scaled = _Box.around(values).scaled(values)

    def merit(index: int) -> tuple[float, float, int]:
        row = scaled[index]
        # Rounding error must not decide between equals: order of summation differs by trial.
        return round(float(row.sum()), 9), round(float(row.min()), 9), -candidates[index].number

    return candidates[max(range(len(candidates)), key=merit)]


def pick(study: StudyRecord, choice: str) -> TrialRecord:
    """Choose one trial by name.

    Except for ``trial:N`` the choice is among the merges on the front; the base and the experts as
    they are can win only when no merge is on the front.

    Args:
        study: The study so far.
        choice: ``knee``, ``best:OBJECTIVE``, ``best:mean`` (of scores that all
            point the same way), ``chosen`` (by the finals) or ``trial:N``. Ties go to the better
            mean, then to the earlier trial.

    Raises:
        StudyError: Unknown choice, or no such complete trial.
    """
    if choice.startswith("trial:"):
        return _trial(study, choice)
    names = [o.name for o in study.objectives]
    winner = next((final.number for final in study.finals if final.chosen), None)
    if choice == "chosen" and winner is not None:
        return _trial(study, f"trial:{winner}")
    possible = [
        "knee",
        *(["chosen"] if winner is not None else []),
        *(f"best:{n}" for n in [*names, *_mean_choice(study.objectives)]),
    ]
    if choice not in possible:
        raise StudyError(f"expected one of {', '.join(possible)} or trial:N, got {choice!r}")
    on_front = front(study)
    candidates = [t for t in on_front if not is_single_model(t.origin)] or list(on_front)
    if not candidates:
        raise StudyError(
            f"expected a complete trial for {choice!r}, got none of {len(study.trials)} in study "
            f"{study.name!r}; see its failures with `evomerge report`"
        )
    if choice == "knee":
        return knee(candidates, study.objectives)
    wanted = choice.removeprefix("best:")

    overall = merits([t.values for t in candidates], study.objectives)
    rows = _oriented(candidates, study.objectives)
    wanted_values = rows[:, names.index(wanted)] if wanted in names else overall

    def merit(index: int) -> tuple[float, float, int]:
        return wanted_values[index], overall[index], -candidates[index].number

    return candidates[max(range(len(candidates)), key=merit)]


@dataclass(frozen=True)
class _Box:
    """Two corners that scale each objective: ``low`` becomes 0 and ``high`` 1.  Shapes: (k,)."""

    low: FloatArray
    high: FloatArray

    @classmethod
    def around(cls, values: FloatArray) -> _Box:
        return cls(values.min(axis=0), values.max(axis=0))

    def scaled(self, values: FloatArray) -> FloatArray:
        side = self.high - self.low
        return (values - self.low) / np.where(side > 0, side, 1.0)


def _hypervolume_box(study: StudyRecord) -> _Box:
    everything = _Box.around(_oriented(complete(study), study.objectives))
    reference = baselines(study)
    if not reference:
        return everything
    box = _Box.around(_oriented(reference, study.objectives))
    differs = box.high > box.low
    return _Box(
        np.where(differs, box.low, everything.low), np.where(differs, box.high, everything.high)
    )


def _volume(points: FloatArray) -> float:
    """Volume between the origin and the points (n, k); points not above it in all add nothing."""
    return float(moocore.hypervolume(points, ref=np.zeros(points.shape[1]), maximise=True))


def _non_dominated(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[TrialRecord, ...]:
    if not trials:
        return ()
    keep = moocore.is_nondominated(_oriented(trials, objectives), maximise=True, keep_weakly=True)
    chosen = [trial for trial, kept in zip(trials, keep, strict=True) if kept]
    return tuple(sorted(chosen, key=lambda t: t.number))


def _oriented(trials: Iterable[TrialRecord], objectives: Sequence[Objective]) -> FloatArray:
    """Values (trials, objectives), larger is better."""
    signs = np.array([o.sign for o in objectives])
    values = np.array([t.values for t in trials], dtype=np.float64).reshape(-1, len(signs))
    oriented: FloatArray = values * signs
    return oriented


def _mean_choice(objectives: Sequence[Objective]) -> list[str]:
    return ["mean"] if has_mean(objectives) else []


def _trial(study: StudyRecord, choice: str) -> TrialRecord:
    numbers = {str(t.number): t for t in complete(study)}
    wanted = choice.removeprefix("trial:")
    if wanted not in numbers:
        state = next((t.state for t in study.trials if str(t.number) == wanted), "unknown")
        raise StudyError(
            f"expected a complete trial of study {study.name!r}, got {choice!r} which is {state}; "
            "list the best ones with `evomerge front`"
        )
    return numbers[wanted]
