"""What a search was good for: its best merge against the best of what was there before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.analysis.front import contenders
from evomerge.analysis.intervals import Estimate, is_clear, mean
from evomerge.analysis.paired import paired_difference
from evomerge.origins import BASE, UNIFORM, is_baseline, model_label
from evomerge.study.records import (
    FinalRecord,
    Objective,
    StudyRecord,
    TrialRecord,
    has_mean,
    mean_name,
    merits,
    scales,
    shares,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Gain", "compared", "gain", "no_gain"]


_Scored = TrialRecord | FinalRecord


@dataclass(frozen=True)
class Gain:
    """The best merge against one baseline.

    Attributes:
        merge: The best merge.
        rival: The baseline that was chosen, else the best one.
        split: Which items it is about: ``test``, before the finals ``search``.
        is_rival_chosen: Whether validation preferred the baseline.
        difference: Merge minus rival, more is better: of the means where the objectives have one,
            else the mean over objectives of the differences, each as a share of the range of all
            models compared.
    """

    merge: _Scored
    rival: _Scored
    split: str
    is_rival_chosen: bool
    difference: Estimate


def gain(study: StudyRecord, items: pd.DataFrame | None = None) -> Gain | None:
    """Compare the best merge with base, experts and uniform average.

    Args:
        study: As it stands.
        items: As ``ItemStore.read`` returns them: errors are then those of the differences on the
            same items, else as if models were scored on items of their own.

    Returns:
        ``None`` without a merge or a baseline.
    """
    finals = [f for f in study.finals if f.split == "test"]
    scored: list[_Scored] = [*(finals or contenders(study))]
    split = "test" if finals else "search"
    merges = [s for s in scored if not is_baseline(s.origin)]
    rivals = [s for s in scored if is_baseline(s.origin)]
    if not merges or not rivals:
        return None
    units = scales([s.values for s in scored], study.objectives)
    merge = _best(merges, study.objectives, units)
    chosen = [f for f in finals if f.chosen and is_baseline(f.origin)]
    kept = [r for r in rivals if r.violation <= merge.violation]
    rival = _best(chosen or kept or rivals, study.objectives, units)
    table = None if items is None else items[items["split"] == split]
    gaps = [
        paired_difference(table, objective, i, merge, rival)
        for i, objective in enumerate(study.objectives)
    ]
    return Gain(merge, rival, split, bool(chosen), _together(gaps, study.objectives, units))


def compared(study: StudyRecord) -> frozenset[int]:
    """Number the trials that are compared item by item: of the finals, before them of ``gain``."""
    found = gain(study)
    best = () if found is None else (found.merge, found.rival)
    finals = (*study.finals, *study.report_only.records)
    return frozenset(scored.number for scored in (*finals, *best))


def no_gain(study: StudyRecord, items: pd.DataFrame | None = None) -> str | None:
    """Say that no merge is better than what was there before, and what to try.

    Args:
        study: As it stands.
        items: See ``gain``.

    Returns:
        One line for people; ``None`` where the best merge is clearly better, or ahead by what
        cannot be judged without standard errors.
    """
    found = gain(study, items)
    if found is None:
        return None
    ahead = found.difference.value > 0
    unknown = math.isnan(found.difference.stderr)
    if ahead and not found.is_rival_chosen and (unknown or is_clear(found.difference)):
        return None
    noun, of = study.noun, study.objectives
    who = _who(found.rival, noun)
    reached = f"{_who(found.merge, noun)} reaches {_scores(found.merge, of)}"
    reached += f", {who} {_scores(found.rival, of).removeprefix(_mean_name(of))}"
    if found.is_rival_chosen:
        said = f"{who} on the validation items, so it is chosen; on the test items {reached}"
    else:
        beyond = " beyond noise" if ahead else ""
        said = f"{who}{beyond} on the {found.split} items: {reached}"
    return f"No {noun} is better than {said}. {_advice(study.objectives)}"


def _best(
    scored: Sequence[_Scored], objectives: Sequence[Objective], units: Sequence[float]
) -> _Scored:
    rated = merits([s.values for s in scored], objectives, units)
    return scored[rated.index(max(rated))]


def _together(
    gaps: Sequence[Estimate], objectives: Sequence[Objective], units: Sequence[float]
) -> Estimate:
    """Average the gaps, each in its unit; costs are measured without noise."""
    value = merits([[gap.value for gap in gaps]], objectives, units)[0]
    noise = [
        0.0 if objective.is_cost and math.isnan(gap.stderr) else gap.stderr / unit
        for gap, objective, unit in zip(gaps, objectives, units, strict=True)
    ]
    return Estimate(value, mean([value] * len(noise), noise, shares(objectives)).stderr)


def _who(scored: _Scored, noun: str) -> str:
    name = model_label(scored.origin, scored.number, noun)
    return f"the {name}" if scored.origin in (BASE, UNIFORM) else name


def _mean_name(objectives: Sequence[Objective]) -> str:
    """What the mean is called, with a space; empty where there is none."""
    if not has_mean(objectives):
        return ""
    return f"{objectives[0].name if len(objectives) == 1 else mean_name(objectives)} "


def _scores(scored: _Scored, objectives: Sequence[Objective]) -> str:
    if name := _mean_name(objectives):
        return f"{name}{mean(scored.values, scored.stderr, shares(objectives))}"
    pairs = zip(objectives, map(Estimate, scored.values, scored.stderr), strict=True)
    return " and ".join(f"{objective.name} {estimate}" for objective, estimate in pairs)


def _advice(objectives: Sequence[Objective]) -> str:
    more = "more trials (a larger budget.trials on resume)"
    if len(objectives) == 1:
        return f"Try {more} or another search space."
    return f"Try {more}, another search space, or fewer objectives."
