"""Picking one trial of a study by name, or the best compromise of several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

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
            point the same way), ``prefer:OBJECTIVE=NUMBER,…`` (the best sum, each objective counted
            so many times), ``chosen`` (by the finals) or ``trial:N``. Ties go to the better mean,
            then to the earlier trial.

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
    preferred = _preferred(choice, study.objectives)
    if choice not in possible and preferred is None:
        raise StudyError(
            f"expected one of {', '.join(possible)}, prefer:{names[0]}=NUMBER,… or trial:N, "
            f"got {choice!r}"
        )
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
    if preferred is not None:
        wanted_values = merits([t.values for t in candidates], preferred)

    def merit(index: int) -> tuple[float, float, int]:
        return wanted_values[index], overall[index], -candidates[index].number

    return candidates[max(range(len(candidates)), key=merit)]


def _preferred(choice: str, objectives: Sequence[Objective]) -> list[Objective] | None:
    """Read ``prefer:a=0.7,b=0.3``: the objectives that are named, the others do not count.

    Raises:
        StudyError: A part of it names no objective, one again, or no number; or none is above 0.
    """
    if not choice.startswith("prefer:"):
        return None
    names, counts = [o.name for o in objectives], dict[str, float]()
    # Names may hold commas, not "=": METRIC,FILTER is part of some.
    for name, number in re.findall(r"([^=]+)=?([^=,]*)(?:,|$)", choice.removeprefix("prefer:")):
        known = name in names and name not in counts
        if not known or not re.fullmatch(r"\d+(\.\d*)?|\.\d+", number):
            raise StudyError(
                f"expected OBJECTIVE=NUMBER, once for each that counts of {', '.join(names)}; got "
                f"{name}={number} in {choice!r}"
            )
        counts[name] = float(number)
    if not any(counts.values()):
        raise StudyError(f"expected a number above 0 for one objective at least, got {choice!r}")
    return [replace(o, preference=counts.get(o.name, 0.0)) for o in objectives]


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
