"""Trials one by one, as a reader looks at them: place, scores with intervals, recipe, command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evomerge.analysis.front import complete, front, oriented
from evomerge.analysis.intervals import Estimate, confidence_interval
from evomerge.analysis.picking import pick
from evomerge.analysis.report.coefficients import RecipeView, view_recipe
from evomerge.analysis.report.scores import (
    Split,
    Standing,
    chosen_number,
    standings,
    summaries,
    summary_measure,
)
from evomerge.arrays import FloatArray
from evomerge.origins import is_baseline, is_single_model, model_label
from evomerge.study.records import Objective, StudyRecord, TrialRecord, merits, scales

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Candidate", "Score", "ScoreLine", "TrialView", "candidates", "trial_views"]

_SPLITS: tuple[Split, ...] = ("search", "validation", "test")

_Shares = Mapping[tuple[str, int, str, str], tuple[int, float]]  # items, share right


@dataclass(frozen=True)
class Score:
    """A score on one split.

    Attributes:
        estimate: With its standard error.
        low: Lower bound at 95 %, Wilson's of a share of items; NaN where it is unknown.
        high: Upper bound.
    """

    estimate: Estimate
    low: float
    high: float


@dataclass(frozen=True)
class ScoreLine:
    """One objective of a trial.

    Attributes:
        objective: What was scored.
        rank: Place of the trial among all complete ones on the search split; equals share one.
        scores: One per split.
    """

    objective: Objective
    rank: int
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class TrialView:
    """One trial.

    Attributes:
        number: Trial number.
        label: What it is.
        place: Where it stands among the others, in words.
        is_chosen: Whether it is the trial that the report is about.
        splits: Those it was scored on.
        lines: One per objective.
        recipe: How it is made; ``None`` if that is not stored.
        command: What exports it.
    """

    number: int
    label: str
    place: str
    is_chosen: bool
    splits: tuple[Split, ...]
    lines: tuple[ScoreLine, ...]
    recipe: RecipeView | None
    command: str


@dataclass(frozen=True)
class Candidate:
    """What a preference may pick.

    Attributes:
        number: Trial number.
        label: What it is.
        merits: One per objective, more is better; their sum with weights decides.
    """

    number: int
    label: str
    merits: tuple[float, ...]


def trial_views(
    study: StudyRecord,
    items: pd.DataFrame | None = None,
    *,
    folder: str = "DIR",
    has_head: bool = True,
) -> Iterator[TrialView]:
    """Describe the complete trials, those that people ask for first.

    Args:
        study: As it stands.
        items: As ``ItemStore.read`` returns them, for intervals of shares.
        folder: The study's, for commands.
        has_head: See ``view_recipe``.

    Yields:
        What is chosen, the front, finalists and baselines, then the others, the best first.
    """
    known = _Known.of(study, items)
    for trial in _ordered(study):
        splits = tuple(s for s in _SPLITS if trial.number in known.scored[s])
        yield TrialView(
            number=trial.number,
            label=model_label(trial.origin, trial.number, study.noun),
            place=_place(study, trial, known),
            is_chosen=trial.number == known.chosen,
            splits=splits,
            lines=tuple(
                ScoreLine(
                    objective,
                    known.rank(trial, i),
                    tuple(known.score(split, trial.number, i) for split in splits),
                )
                for i, objective in enumerate(study.objectives)
            ),
            recipe=view_recipe(trial.recipe, has_head=has_head) if trial.recipe else None,
            command=_command(trial, folder),
        )


def _command(trial: TrialRecord, folder: str) -> str:
    """What writes a trial: as a model, or the recipe of models that no one checkpoint holds."""
    form = "--format recipe --out FILE" if "ensemble" in trial.recipe else "--out OUT"
    return f"evomerge export {shlex.quote(folder)} --pick trial:{trial.number} {form}"


def candidates(study: StudyRecord) -> tuple[Candidate, ...]:
    """List what a preference between objectives may pick: the merges of the front, the best first.

    The base and the experts as they are stand in where no merge is on the front.
    """
    on_front = front(study)
    trials = [t for t in on_front if not is_single_model(t.origin)] or list(on_front)
    units = scales([t.values for t in trials], study.objectives)
    overall = merits([t.values for t in trials], study.objectives, units)
    ordered = sorted(zip(overall, trials, strict=True), key=lambda pair: -pair[0])
    return tuple(
        Candidate(
            trial.number,
            model_label(trial.origin, trial.number, study.noun),
            tuple(
                o.sign * value / unit
                for o, value, unit in zip(study.objectives, trial.values, units, strict=True)
            ),
        )
        for _, trial in ordered
    )


@dataclass(frozen=True)
class _Known:
    """What every view of a trial of one study needs."""

    objectives: Sequence[Objective]
    sorted: FloatArray  # (objectives + 1, trials): each objective, and the summary, rising
    merits: Mapping[int, float]
    chosen: int | None
    knee: int | None
    front: frozenset[int]
    scored: Mapping[Split, Mapping[int, Standing]]
    shares: _Shares

    @classmethod
    def of(cls, study: StudyRecord, items: pd.DataFrame | None) -> _Known:
        return cls(
            objectives=study.objectives,
            sorted=_sorted(study),
            merits=summaries(study),
            chosen=chosen_number(study),
            knee=pick(study, "knee").number if complete(study) else None,
            front=frozenset(t.number for t in front(study)),
            scored={split: {s.number: s for s in standings(study, split)} for split in _SPLITS},
            shares={} if items is None else _shares(items),
        )

    def rank(self, trial: TrialRecord, i: int) -> int:
        """Say which place a trial has in one objective."""
        return self._place(i, self.objectives[i].sign * trial.values[i])

    def summary_rank(self, trial: TrialRecord) -> int:
        """Say which place a trial has by what sums it up."""
        return self._place(len(self.objectives), self.merits[trial.number])

    def _place(self, row: int, own: float) -> int:
        column = self.sorted[row]
        return 1 + len(column) - int(np.searchsorted(column, own, side="right"))

    def score(self, split: Split, number: int, i: int) -> Score:
        """Read the score of a trial in one objective, with its interval."""
        objective, scored = self.objectives[i], self.scored[split][number]
        value, stderr = scored.values[i], scored.stderr[i]
        n, share = self.shares.get((split, number, objective.task, objective.metric), (0, math.nan))
        of_items = n if math.isclose(share, value, abs_tol=1e-9) else None
        bounds = confidence_interval(value, stderr, of_items, is_share=objective.is_share)
        return Score(Estimate(value, stderr), *bounds)


def _sorted(study: StudyRecord) -> FloatArray:
    values, merit = oriented(complete(study), study.objectives), summaries(study)
    return np.sort(np.column_stack([values, list(merit.values())]).T, axis=1)


def _shares(items: pd.DataFrame) -> _Shares:
    """Count the items, and the share of right ones, where items are right or wrong."""
    keys = ["split", "trial", "task", "metric"]
    of = items.assign(right=items["score"].isin((0.0, 1.0))).groupby(keys, observed=True)
    table = of.agg(n=("score", "size"), share=("score", "mean"), right=("right", "all"))
    table = table[table["right"]]
    return dict(
        zip(
            table.index, zip(table["n"].tolist(), table["share"].tolist(), strict=True), strict=True
        )
    )


def _ordered(study: StudyRecord) -> list[TrialRecord]:
    merit = summaries(study)
    on_front, finals = {t.number for t in front(study)}, {f.number for f in study.finals}
    chosen = chosen_number(study)

    def key(trial: TrialRecord) -> tuple[bool, bool, bool, bool, float, int]:
        return (
            trial.number != chosen,
            trial.number not in on_front,
            trial.number not in finals,
            not is_baseline(trial.origin),
            -merit[trial.number],
            trial.number,
        )

    return sorted(complete(study), key=key)


def _place(study: StudyRecord, trial: TrialRecord, known: _Known) -> str:
    """Say where a trial stands: ``On the front, the knee. Rank 3 of 60 by mean …``."""
    parts = ["on the front" if trial.number in known.front else "not on the front"]
    parts += ["its knee"] * (trial.number == known.knee and trial.number in known.front)
    if trial.number in known.scored["validation"]:
        is_chosen = any(f.chosen for f in study.finals) and trial.number == known.chosen
        parts.append("chosen on the validation items" if is_chosen else "in the finals")
    parts += ["violates a constraint"] * (not trial.is_feasible)
    where = ", ".join(parts)
    label = summary_measure(study.objectives).label
    rank = f"rank {known.summary_rank(trial)} of {len(known.merits)} by {label}"
    return f"Trial {trial.number}: {where}; {rank} on the search items."
