"""Held-out scores as they should be quoted: with intervals, and relative to base and experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.analysis.intervals import confidence_interval
from evomerge.origins import BASE, is_single_model
from evomerge.study.records import FinalRecord, Objective, StudyRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HeldOutRow", "HeldOutScore", "held_out_rows"]


@dataclass(frozen=True)
class HeldOutScore:
    """One objective of one model.

    Attributes:
        value: The metric.
        low: Lower bound at 95 %: Wilson's for a share of items, else from the standard error; NaN
            where neither is known.
        high: Upper bound.
        normalised: 0 for the base, 1 for the best expert; NaN where no expert beats the base.
    """

    value: float
    low: float
    high: float
    normalised: float


@dataclass(frozen=True)
class HeldOutRow:
    """One model on the test items.

    Attributes:
        number: Trial number.
        origin: The trial's origin.
        chosen: What validation picked.
        scores: One per objective.
    """

    number: int
    origin: str
    chosen: bool
    scores: tuple[HeldOutScore, ...]


def held_out_rows(study: StudyRecord, items: pd.DataFrame) -> tuple[HeldOutRow, ...]:
    """List base, experts, uniform average and the best merge on the test items.

    Args:
        study: With finals; without them there are no rows.
        items: As ``ItemStore.read`` returns them.
    """
    finals = [final for final in study.finals if final.split == "test"]
    table = items[items["split"] == "test"]
    columns = [
        _scores(index, objective, finals, table) for index, objective in enumerate(study.objectives)
    ]
    return tuple(
        HeldOutRow(final.number, final.origin, final.chosen, scores)
        for final, scores in zip(finals, zip(*columns, strict=True), strict=True)
    )


def _scores(
    index: int, objective: Objective, finals: Sequence[FinalRecord], table: pd.DataFrame
) -> list[HeldOutScore]:
    """Score every model in one objective."""
    of_it = table[(table["task"] == objective.task) & (table["metric"] == objective.metric)]
    zero, one = _parents(index, objective, finals)
    found = []
    for final in finals:
        value = final.values[index]
        n = _n_of_share(of_it.loc[of_it["trial"] == final.number, "score"], value)
        bounds = confidence_interval(value, final.stderr[index], n, is_share=objective.is_share)
        found.append(HeldOutScore(value, *bounds, _normalised(value, zero, one, objective)))
    return found


def _parents(
    index: int, objective: Objective, finals: Sequence[FinalRecord]
) -> tuple[float, float]:
    """Return the base's value and the best expert's; NaN where there is none."""
    parents = {f.origin: f.values[index] for f in finals if is_single_model(f.origin)}
    base = parents.pop(BASE, math.nan)
    return base, max(parents.values(), key=lambda v: objective.sign * v, default=math.nan)


def _normalised(value: float, base: float, expert: float, objective: Objective) -> float:
    gain = expert - base
    return (value - base) / gain if objective.sign * gain > 0 else math.nan


def _n_of_share(scores: pd.Series[float], value: float) -> int | None:
    """Count the items where the value is the share of them that is right."""
    is_share = scores.isin((0.0, 1.0)).all() and math.isclose(scores.mean(), value, abs_tol=1e-9)
    return len(scores) if len(scores) and is_share else None
