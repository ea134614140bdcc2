"""Constraints: what a merge must keep, e.g. a score no worse than the base model's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.execution.costs import COST
from evomerge.origins import is_baseline, is_reference
from evomerge.study.evaluations import is_used_up, summed
from evomerge.study.records import FinalRecord, TrialRecord

__all__ = ["Bound", "Constraint", "finals_note", "parse_bound", "unenforced", "violations"]

_GRAMMAR = (
    "expected a number, or base, uniform or expert:NAME, alone or followed by +, - or * and a "
    "number, with spaces between"
)


@dataclass(frozen=True)
class Bound:
    """A number, or a baseline's own score that a number is added to or multiplied with.

    Attributes:
        reference: Origin of the baseline; ``None`` for a plain number.
        factor: Multiplies the baseline's score.
        offset: Is added.
    """

    reference: str | None
    factor: float
    offset: float

    def value(self, references: Mapping[str, float]) -> float | None:
        """Evaluate the bound.

        Args:
            references: Scores by origin, of the baselines that are known so far.

        Returns:
            ``None`` while the baseline is not known.
        """
        if self.reference is None:
            return self.offset
        if self.reference not in references:
            return None
        return self.factor * references[self.reference] + self.offset


def parse_bound(written: float | str) -> Bound:
    """Read a bound: ``0.5``, ``base``, ``base - 0.01``, ``expert:math * 0.95``.

    Raises:
        ValueError: It is none of these.
    """
    match str(written).split():
        case [number] if (value := _number(number)) is not None:
            return Bound(None, 0.0, value)
        case [origin] if is_reference(origin):
            return Bound(origin, 1.0, 0.0)
        case [origin, ("+" | "-" | "*") as sign, number] if is_reference(origin):
            if (value := _number(number)) is not None:
                is_factor = sign == "*"
                offset = -value if sign == "-" else value
                return Bound(origin, value if is_factor else 1.0, 0.0 if is_factor else offset)
    raise ValueError(f"{_GRAMMAR}, got {written!r}")


@dataclass(frozen=True)
class Constraint:
    """One metric of one task, bounded on one side.

    Attributes:
        task: As in ``Objective``.
        metric: As in ``Objective``.
        side: Which way the bound cuts.
        bound: Where.
        text: The bound as the user wrote it.
    """

    task: str
    metric: str
    side: Literal["at_least", "at_most"]
    bound: Bound
    text: str

    @property
    def name(self) -> str:
        """For people: ``zoo_facts acc at least base - 0.01``."""
        subject = self.metric if self.task == COST else f"{self.task} {self.metric}"
        return f"{subject} {self.side.replace('_', ' ')} {self.text}"

    def violation(self, value: float, references: Mapping[str, float]) -> float:
        """Say how far a value is beyond the bound, as a share of the bound.

        Shares let constraints of different units be added up; a bound of 0 has no share, so the
        distance itself stands.

        Returns:
            At most 0 for values within the bound, and 0 while the bound is not known.
        """
        bound = self.bound.value(references)
        if bound is None:
            return 0.0
        beyond = bound - value if self.side == "at_least" else value - bound
        return beyond / abs(bound) if bound else beyond


def violations(
    constraints: Sequence[Constraint],
    measured: Sequence[float],
    baselines: Iterable[tuple[str, Sequence[float]]],
) -> tuple[float, ...]:
    """Compare one trial with every constraint; it is feasible if none is above 0.

    The point estimates decide: a constraint that must hold beyond noise needs a margin in its
    bound.

    Args:
        constraints: In the study's order.
        measured: The trial's value per constraint.
        baselines: Origin and values of the baselines known so far.
    """
    known = list(baselines)
    return tuple(
        constraint.violation(value, {origin: values[i] for origin, values in known})
        for i, (constraint, value) in enumerate(zip(constraints, measured, strict=True))
    )


def unenforced(
    constraints: Sequence[Constraint],
    trials: Sequence[TrialRecord],
    n_trials: int,
    finals: Sequence[FinalRecord] = (),
) -> tuple[str, ...]:
    """List the constraints that hold nothing, because the baseline they refer to has no score.

    One whose baseline is still to be scored is not listed.

    Args:
        constraints: Of the study.
        trials: Those that were asked.
        n_trials: The budget.
        finals: Held-out scores, if the finals were run.

    Returns:
        For people, one line each.
    """
    found, used = [], summed(trial.evaluations for trial in trials)
    for constraint in constraints:
        origin = constraint.bound.reference
        of_it = [t for t in trials if t.origin == origin]
        is_pending = any(t.state == "running" for t in of_it)
        is_pending |= not of_it and not is_used_up(used, n_trials)
        if origin is None or is_pending:
            continue
        if not any(t.state == "complete" for t in of_it):
            why = f"trial {of_it[-1].number}: {of_it[-1].error}" if of_it else "no trial was left"
            found.append(f"{constraint.name} ({origin} was not scored; {why})")
        elif finals and not any(f.origin == origin and f.split == "validation" for f in finals):
            found.append(f"{constraint.name} ({origin} was not scored on validation)")
    return tuple(found)


def finals_note(records: Sequence[FinalRecord], constraints: Sequence[str]) -> str | None:
    """Say that no merge in the finals satisfies the constraints; ``None`` if one does."""
    merges = [r for r in records if r.split == "validation" and not is_baseline(r.origin)]
    if not merges or any(r.is_feasible for r in merges):
        return None
    reported = {r.number for r in records if r.split == "test"}
    nearest = min(merges, key=lambda r: (r.violation, r.number not in reported))
    named = zip(constraints, nearest.violations, strict=True)
    violated = "; ".join(name for name, excess in named if excess > 0)
    return (
        f"no finalist satisfies the constraints on the validation items; trial {nearest.number} "
        f"violates them least ({violated})"
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
