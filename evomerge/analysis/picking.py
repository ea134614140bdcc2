"""Picking one trial of a study by name, or the best compromise of several."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.analysis.front import Box, complete, front, non_dominated, oriented
from evomerge.errors import StudyError
from evomerge.origins import is_single_model
from evomerge.study.records import Objective, StudyRecord, TrialRecord, has_mean, merits

__all__ = ["knee", "pick"]


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
    candidates = non_dominated(trials, objectives)
    if not candidates:
        raise StudyError("expected at least one complete trial to choose from, got none")
    values = oriented(candidates, objectives)
    scaled = Box.around(values).scaled(values)

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
    rows = oriented(candidates, study.objectives)
    wanted_values = rows[:, names.index(wanted)] if wanted in names else overall

    def merit(index: int) -> tuple[float, float, int]:
        return wanted_values[index], overall[index], -candidates[index].number

    return candidates[max(range(len(candidates)), key=merit)]


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
