"""Which scores the report is about: one label, one standing, one summary measure per model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.analysis.front import complete
from evomerge.analysis.intervals import Estimate, mean
from evomerge.analysis.once import once
from evomerge.analysis.picking import pick
from evomerge.origins import is_baseline, kind_and_name
from evomerge.study.records import (
    FinalRecord,
    Objective,
    StudyRecord,
    TrialRecord,
    has_mean,
    mean_name,
    shares,
)

__all__ = [
    "BASELINE",
    "MERGE",
    "Measure",
    "Split",
    "Standing",
    "best",
    "chosen_number",
    "final_split",
    "measures",
    "standings",
    "summaries",
    "summary_measure",
]

BASELINE, MERGE = "baseline", "merge"  # kinds of models: what was there before, and what was not
Split = Literal["search", "validation", "test"]


@dataclass(frozen=True)
class Measure:
    """One number that sums a model up: an objective, or the mean over several.

    Attributes:
        label: Its name.
        sign: +1 where larger is better, -1 where smaller is.
        indices: The objectives it averages.
        shares: How much each of them counts; they sum to 1.
    """

    label: str
    sign: float
    indices: tuple[int, ...]
    shares: tuple[float, ...] = (1.0,)

    @property
    def heading(self) -> str:
        """Name it above a column; lower is better where an arrow points down."""
        return self.label + (" ↓" if self.sign < 0 else "")

    def of(self, scored: Standing | TrialRecord) -> Estimate:
        """Read the measure off a scored model."""
        return mean(
            [scored.values[i] for i in self.indices],
            [scored.stderr[i] for i in self.indices],
            self.shares,
        )


@dataclass(frozen=True)
class Standing:
    """How one model did on one split.

    Attributes:
        number: Trial number.
        origin: The trial's origin.
        values: One per objective.
        stderr: Standard error beside each value.
        is_feasible: Violates no constraint on this split.
    """

    number: int
    origin: str
    values: tuple[float, ...]
    stderr: tuple[float, ...]
    is_feasible: bool = True

    @classmethod
    def of(cls, record: TrialRecord | FinalRecord) -> Standing:
        """Take the scores out of a record."""
        return cls(record.number, record.origin, record.values, record.stderr, record.is_feasible)


def measures(objectives: Sequence[Objective]) -> tuple[Measure, ...]:
    """List the columns of a score table: what sums a model up, then the other objectives.

    Accuracy and perplexity have no mean worth reading: where directions differ or costs are among
    the objectives, the first objective that is a score stands for all.
    """
    each = [Measure(o.name, o.sign, (i,)) for i, o in enumerate(objectives)]
    if len(each) > 1 and has_mean(objectives):
        name, every = mean_name(objectives), tuple(range(len(objectives)))
        return (Measure(name, each[0].sign, every, tuple(shares(objectives))), *each)
    summary = next((i for i, o in enumerate(objectives) if not o.is_cost), 0)
    return (each[summary], *each[:summary], *each[summary + 1 :])


def summary_measure(objectives: Sequence[Objective]) -> Measure:
    """Return what sums a model up: the mean where there is one, else one objective."""
    return measures(objectives)[0]


@once
def chosen_number(study: StudyRecord) -> int | None:
    """Find the trial the report is about: validation's choice, before that the front's knee."""
    for final in study.finals:
        if final.chosen:
            return final.number
    return pick(study, "knee").number if complete(study) else None


def final_split(study: StudyRecord) -> Split:
    """Say which split the headline quotes: the most honest one that has the chosen model."""
    chosen = chosen_number(study)
    splits = {final.split for final in study.finals if final.number == chosen}
    for split in ("test", "validation"):
        if split in splits:
            return "test" if split == "test" else "validation"
    return "search"


@once
def standings(study: StudyRecord, split: Split) -> tuple[Standing, ...]:
    """List every model scored on a split, in order of trial number."""
    scored: Sequence[TrialRecord | FinalRecord] = (
        complete(study) if split == "search" else [f for f in study.finals if f.split == split]
    )
    return tuple(sorted(map(Standing.of, scored), key=lambda s: s.number))


@once
def summaries(study: StudyRecord) -> dict[int, float]:
    """Sum every complete trial up by the ``summary_measure``, by number; larger is better."""
    measure = summary_measure(study.objectives)
    return {t.number: measure.sign * measure.of(t).value for t in complete(study)}


def best(candidates: Sequence[Standing], measure: Measure, *, kind: str) -> Standing | None:
    """Find the best ``expert``, ``uniform`` or other kind of origin, ``BASELINE`` or ``MERGE``."""
    of_kind = [
        c
        for c in candidates
        if kind in (kind_and_name(c.origin)[0], BASELINE if is_baseline(c.origin) else MERGE)
    ]
    return max(of_kind, key=lambda c: measure.sign * measure.of(c).value, default=None)
