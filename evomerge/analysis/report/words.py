"""The result in two sentences, for the top of the page and for anyone who quotes it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from evomerge.analysis.gain import gain, no_gain
from evomerge.analysis.intervals import Estimate, difference, is_clear
from evomerge.analysis.report.numbers import format_estimate
from evomerge.analysis.report.scores import (
    BASELINE,
    MERGE,
    Measure,
    Standing,
    best,
    chosen_number,
    final_split,
    measures,
    standings,
)
from evomerge.analysis.silence import silences
from evomerge.origins import EXPERT, UNIFORM, is_baseline, is_single_model, model_label
from evomerge.study.constraints import finals_note
from evomerge.study.records import StudyRecord, has_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["headline", "verdict", "versus_noise"]


def headline(study: StudyRecord) -> str:
    """Say what the study reached: ``Best merge reaches mean 0.71 ± 0.02 on the test split``."""
    chosen = _chosen(study)
    if chosen is None:
        return "No trial has finished yet."
    scored = standings(study, final_split(study))
    shown = _headline_measures(study)
    reached = " and ".join(f"{m.label} {_short(m.of(chosen))}" for m in shown)
    noun = study.noun
    who = model_label(chosen.origin, chosen.number, noun)
    is_unbeaten = is_single_model(chosen.origin) or (is_baseline(chosen.origin) and study.finals)
    subject = {UNIFORM: "Best merge, the uniform average,"}.get(chosen.origin, f"Best {noun}")
    if is_unbeaten:
        subject = f"No {noun} beats {'the ' * (chosen.origin == UNIFORM)}{who}, which"
    text = f"{subject} reaches {reached} on the {final_split(study)} split"
    rivals = []
    kinds = ((MERGE, f"best {noun}"), (EXPERT, "best expert"), (UNIFORM, "uniform average"))
    for kind, name in kinds[not is_unbeaten :]:
        rival = best(scored, shown[0], kind=kind) if len(shown) == 1 else None
        if rival is not None and rival.number != chosen.number:
            rivals.append(f"{name} {_short(shown[0].of(rival))}")
    return text + (f"; {', '.join(rivals)}." if rivals else ".")


def verdict(study: StudyRecord, items: pd.DataFrame | None = None) -> str:
    """Say whether the result stands out from the best baseline, and how far to trust it.

    Args:
        study: As it stands.
        items: See ``gain``.
    """
    chosen = _chosen(study)
    if chosen is None:
        return ""
    split = final_split(study)
    sentences = [f"Not enforced: {constraint}." for constraint in study.unenforced]
    sentences += [f"{silence.line}." for silence in silences(study)]
    if note := finals_note(study.finals, study.constraints):
        sentences.append(f"{note[0].upper()}{note[1:]}.")
    if not _is_feasible(study, chosen.number):
        sentences.append("No trial is feasible; this is the least infeasible one.")
    if nothing := no_gain(study, items):
        sentences.append(nothing)
    elif has_mean(study.objectives):
        sentences += _compared(study, chosen, items)
    if split == "search":
        sentences.append(
            "These are the scores the search selected by, so the winner's are biased upward; "
            "held-out scores appear here when the search has finished."
        )
    return " ".join(sentences)


def versus_noise(gap: Estimate) -> str:
    """Judge a difference: ``clear``, ``within noise`` or ``noise unknown``."""
    if math.isnan(gap.stderr):
        return "noise unknown"
    return "clear" if is_clear(gap) else "within noise"


def _compared(study: StudyRecord, chosen: Standing, items: pd.DataFrame | None) -> list[str]:
    """Hold the chosen trial against the best baseline; the best merge on the same items."""
    measure = _headline_measures(study)[0]
    rival = best(standings(study, final_split(study)), measure, kind=BASELINE)
    if rival is None or rival.number == chosen.number:
        return []
    ahead = difference(measure.of(chosen), measure.of(rival))
    ahead = Estimate(measure.sign * ahead.value, ahead.stderr)
    found = gain(study, items)
    if found is not None and (found.merge.number, found.rival.number) == (
        chosen.number,
        rival.number,
    ):
        ahead = found.difference
    size = format_estimate(Estimate(abs(ahead.value), ahead.stderr), digits=1)
    name = model_label(rival.origin, rival.number, study.noun)
    better = "better" if ahead.value >= 0 else "worse"
    judgement = {
        "clear": "a clear difference, more than two standard errors",
        "within noise": "not a clear difference, less than two standard errors",
        "noise unknown": "whether that is clear cannot be said without standard errors",
    }[versus_noise(ahead)]
    return [f"That is {size} {better} than the best baseline ({name}), {judgement}."]


def _is_feasible(study: StudyRecord, number: int) -> bool:
    return next(trial for trial in study.trials if trial.number == number).is_feasible


def _chosen(study: StudyRecord) -> Standing | None:
    number = chosen_number(study)
    return next((s for s in standings(study, final_split(study)) if s.number == number), None)


def _headline_measures(study: StudyRecord) -> tuple[Measure, ...]:
    """The mean (or the only objective) if there is one, else every objective."""
    every = measures(study.objectives)
    return (
        every[:1] if has_mean(study.objectives) else tuple(sorted(every, key=lambda m: m.indices))
    )


def _short(estimate: Estimate) -> str:
    return format_estimate(estimate, digits=1)
