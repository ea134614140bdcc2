"""The best merge against base and experts, item by item: what it gained, what it broke."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evomerge.analysis.intervals import Estimate, difference
from evomerge.arrays import FloatArray
from evomerge.origins import is_baseline, is_single_model
from evomerge.study.records import FinalRecord, Objective, StudyRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PairedRow", "paired_difference", "paired_rows", "paired_scores"]


@dataclass(frozen=True)
class PairedRow:
    """The best merge against one reference in one objective, on the test items.

    Attributes:
        reference: Origin of the reference: ``base`` or ``expert:NAME``.
        objective: Name.
        gain: Merge minus reference, standard error of the paired difference; as the metric counts.
        negative_flips: Share of all items that the reference gets right and the merge wrong; NaN
            where items are not simply right or wrong.
        n_items: Items behind it.
    """

    reference: str
    objective: str
    gain: Estimate
    negative_flips: float
    n_items: int


def paired_rows(study: StudyRecord, items: pd.DataFrame) -> tuple[PairedRow, ...]:
    """Compare the best merge with base and experts on the items that both were scored on.

    Args:
        study: With finals; without them there are no rows.
        items: As ``ItemStore.read`` returns them.

    Returns:
        By reference, then objective; objectives without item scores are left out.

    Source:
        Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, section 4.2 (paired errors);
        Echterhoff et al. 2024, "MUSCLE", arXiv:2407.09435 (negative flips).
    """
    finals = [final for final in study.finals if final.split == "test"]
    # The one beside the baselines; in studies of before baselines could win, perhaps the average.
    merges = sorted(finals, key=lambda f: (is_baseline(f.origin), not f.chosen))
    if not merges or is_single_model(merges[0].origin):
        return ()
    table, merge = items[items["split"] == "test"], merges[0]
    rows = [
        _row(table, merge, reference, objective)
        for reference in finals
        if is_single_model(reference.origin)
        for objective in study.objectives
    ]
    return tuple(row for row in rows if row is not None)


def paired_scores(table: pd.DataFrame, measure: Objective, left: int, right: int) -> FloatArray:
    """Line up the scores of two trials on the items that both were scored on.

    Args:
        table: Item scores of one split.
        measure: Task and metric.
        left: A trial number.
        right: Another.

    Returns:
        (items, 2); no rows where one of them has no scores of items.
    """
    of_both = table[table["trial"].isin((left, right))]
    of_it = of_both[(of_both["task"] == measure.task) & (of_both["metric"] == measure.metric)]
    scores = of_it.pivot(index="item", columns="trial", values="score")
    if not {left, right} <= set(scores.columns):
        return np.empty((0, 2))
    both: FloatArray = scores[[left, right]].dropna().to_numpy(dtype=float)
    return both


def paired_difference(
    table: pd.DataFrame | None,
    measure: Objective,
    index: int,
    left: TrialRecord | FinalRecord,
    right: TrialRecord | FinalRecord,
) -> Estimate:
    """Subtract the scores of two models in one objective.

    Args:
        table: Item scores of the split that both were scored on; ``None`` if there are none.
        measure: The objective.
        index: Its place among the values.
        left: A model.
        right: Another.

    Returns:
        ``left - right`` with the error of the differences on the same items, where the score is
        the mean of theirs; else as if the two were independent.
    """
    a, b = (Estimate(record.values[index], record.stderr[index]) for record in (left, right))
    apart = difference(a, b)
    if table is None:
        return apart
    both = paired_scores(table, measure, left.number, right.number)
    gains = both[:, 0] - both[:, 1]
    if len(gains) < 2 or not math.isclose(float(gains.mean()), apart.value, abs_tol=1e-9):
        return apart
    return Estimate(apart.value, _stderr(gains))


def _stderr(gains: FloatArray) -> float:
    return float(np.std(gains, ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan


def _row(
    table: pd.DataFrame, merge: FinalRecord, reference: FinalRecord, objective: Objective
) -> PairedRow | None:
    both = paired_scores(table, objective, merge.number, reference.number)
    if not len(both):
        return None
    gains, n = both[:, 0] - both[:, 1], len(both)
    is_binary = bool(np.isin(both, (0.0, 1.0)).all())
    flips = float(np.mean(gains < 0)) if is_binary else math.nan
    gain = Estimate(float(np.mean(gains)), _stderr(gains))
    return PairedRow(reference.origin, objective.name, gain, flips, n)
