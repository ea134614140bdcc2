"""Forgetting: what merging did to tasks that the search never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evomerge.analysis.intervals import confidence_interval, difference_interval
from evomerge.analysis.paired import paired_scores
from evomerge.origins import BASE, EXPERT, kind_and_name
from evomerge.study.records import FinalRecord, Objective, StudyRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Change", "ForgettingRow", "forgetting_rows"]


@dataclass(frozen=True)
class Change:
    """One model minus a reference, in one metric.

    Attributes:
        reference: Origin of the reference: ``base`` or ``expert:NAME``.
        value: The difference, as the metric counts.
        low: Lower bound at 95 %, from the same items where there are scores of items, else as if
            the two scores were independent; NaN where neither is known.
        high: Upper bound.
    """

    reference: str
    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ForgettingRow:
    """One model in one metric of a task that the search never saw.

    Attributes:
        number: Trial number.
        origin: The trial's origin.
        chosen: What validation picked.
        measure: Name of the metric.
        direction: Which way it is better.
        value: The score.
        stderr: Its standard error.
        normalised: As a share of the base's, more is better: 1 has forgotten nothing. NaN where the
            base scores 0 or less.
        versus_base: ``None`` for the base itself, or without its score.
        versus_expert: Against the expert that is best in this metric; ``None`` for itself.
        negative_flips: Share of all items that the base gets right and this model wrong; NaN where
            items are not simply right or wrong.
    """

    number: int
    origin: str
    chosen: bool
    measure: str
    direction: str
    value: float
    stderr: float
    normalised: float
    versus_base: Change | None
    versus_expert: Change | None
    negative_flips: float


def forgetting_rows(study: StudyRecord, items: pd.DataFrame) -> tuple[ForgettingRow, ...]:
    """Compare every model with the base and the best expert on tasks the search never saw.

    Args:
        study: With finals and such tasks; otherwise there are no rows.
        items: As ``ItemStore.read`` returns them.

    Returns:
        By metric, then model.

    Source:
        Normalised by the base as zero-shot scores are in Yadav et al. 2024, "What Matters for Model
        Merging at Scale?", arXiv:2410.03617.
    """
    table = items[items["split"] == "report_only"]
    return tuple(
        _row(index, measure, record, study.report_only.records, table)
        for index, measure in enumerate(study.report_only.measures)
        for record in study.report_only.records
    )


def _row(
    index: int,
    measure: Objective,
    record: FinalRecord,
    everyone: Sequence[FinalRecord],
    table: pd.DataFrame,
) -> ForgettingRow:
    base = next((r for r in everyone if r.origin == BASE), None)
    expert = _best_expert(index, measure, everyone)
    return ForgettingRow(
        number=record.number,
        origin=record.origin,
        chosen=record.chosen,
        measure=measure.name,
        direction=measure.direction,
        value=record.values[index],
        stderr=record.stderr[index],
        normalised=_share(index, measure, record, base),
        versus_base=_change(index, measure, record, base, table),
        versus_expert=_change(index, measure, record, expert, table),
        negative_flips=_flips(measure, record, base, table),
    )


def _best_expert(
    index: int, measure: Objective, everyone: Sequence[FinalRecord]
) -> FinalRecord | None:
    experts = [r for r in everyone if kind_and_name(r.origin)[0] == EXPERT]
    return max(experts, key=lambda r: measure.sign * r.values[index], default=None)


def _share(index: int, measure: Objective, record: FinalRecord, base: FinalRecord | None) -> float:
    if base is None:
        return math.nan
    better, worse = record.values[index], base.values[index]
    if measure.direction == "minimize":
        better, worse = worse, better
    return better / worse if better >= 0 and worse > 0 else math.nan


def _change(
    index: int,
    measure: Objective,
    record: FinalRecord,
    reference: FinalRecord | None,
    table: pd.DataFrame,
) -> Change | None:
    if reference is None or reference.number == record.number:
        return None
    value = record.values[index] - reference.values[index]
    both = paired_scores(table, measure, record.number, reference.number)
    gains = both[:, 0] - both[:, 1]
    if len(gains) and math.isclose(float(np.mean(gains)), value, abs_tol=1e-9):
        return Change(reference.origin, value, *difference_interval(gains))
    stderr = math.hypot(record.stderr[index], reference.stderr[index])
    return Change(reference.origin, value, *confidence_interval(value, stderr, None))


def _flips(
    measure: Objective, record: FinalRecord, base: FinalRecord | None, table: pd.DataFrame
) -> float:
    both = paired_scores(table, measure, record.number, -1 if base is None else base.number)
    if not len(both) or not np.isin(both, (0.0, 1.0)).all():
        return math.nan
    return float(np.mean(both[:, 0] < both[:, 1]))
