"""Rows of the report's tables: held-out scores, front, failures, time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from evomerge.analysis.front import complete, front
from evomerge.analysis.intervals import Estimate, difference
from evomerge.analysis.report.scores import (
    Measure,
    Split,
    Standing,
    chosen_number,
    final_split,
    measures,
    standings,
    summary_measure,
)
from evomerge.analysis.report.words import versus_noise
from evomerge.origins import is_baseline, model_label
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = [
    "Failure",
    "GapRow",
    "GapTable",
    "PhaseTime",
    "ScoreRow",
    "Whisker",
    "failures",
    "final_rows",
    "front_rows",
    "gaps",
    "phase_times",
    "wall_clock",
]

_FRONT_ROWS = 30
_PHASES = ("ask", "merge", "evaluate", "slopes", "tell")


@dataclass(frozen=True)
class Whisker:
    """An error bar inside a table cell, all in percent of the cell's width.

    Attributes:
        left: Where the bar (± 2 standard errors) starts.
        width: Its length.
        dot: The point estimate.
    """

    left: float
    width: float
    dot: float


@dataclass(frozen=True)
class ScoreRow:
    """One model in a score table.

    Attributes:
        label: What it is.
        number: Trial number.
        is_baseline: Base or expert as they are, or the uniform average.
        is_chosen: The trial the report is about.
        is_feasible: Violates no constraint on the split of the table.
        estimates: One per measure, in their order.
        whisker: The summary, drawn.
    """

    label: str
    number: int
    is_baseline: bool
    is_chosen: bool
    is_feasible: bool
    estimates: tuple[Estimate, ...]
    whisker: Whisker | None


@dataclass(frozen=True)
class GapRow:
    """One finalist's search score against its held-out scores.

    Attributes:
        label: What it is.
        number: Trial number.
        is_chosen: The trial the report is about.
        search: What the search saw.
        validation: What the choice among finalists saw; ``None`` if it was not scored there.
        test: What nothing was chosen by; ``None`` for all but baselines and the best merge.
        gap: By how much the search score is better than that on test, or else on validation; for
            the winner usually an overstatement.
        judgement: ``clear``, ``within noise`` or ``noise unknown``.
    """

    label: str
    number: int
    is_chosen: bool
    search: Estimate
    validation: Estimate | None
    test: Estimate | None
    gap: Estimate
    judgement: str


@dataclass(frozen=True)
class GapTable:
    """The finalists in one measure.

    Attributes:
        measure: Its label.
        rows: One per model.
    """

    measure: str
    rows: tuple[GapRow, ...]


@dataclass(frozen=True)
class Failure:
    """Trials that ended without a score for one reason.

    Attributes:
        reason: Last line of the error.
        detail: The whole error of the first of them; empty if it is only that line.
        state: ``failed`` or ``pruned``.
        numbers: Trial numbers.
    """

    reason: str
    detail: str
    state: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class PhaseTime:
    """Seconds the workers and the driver spent in one phase, over all trials.

    Attributes:
        phase: ``ask``, ``merge``, ``evaluate``, ``tell`` or another the study recorded.
        seconds: Sum over trials.
        share: Of all phases, in percent.
    """

    phase: str
    seconds: float
    share: float


def final_rows(study: StudyRecord) -> tuple[ScoreRow, ...]:
    """List baselines and finalists on the split the headline quotes, best summary first."""
    return _score_rows(study, standings(study, final_split(study)))


def front_rows(study: StudyRecord) -> tuple[ScoreRow, ...]:
    """List the front's trials with their search scores, best summary first, 30 at most.

    With one objective the front is one trial, so the best trials stand in for it.
    """
    trials = front(study) if len(study.objectives) > 1 else complete(study)
    return _score_rows(study, [Standing.of(t) for t in trials], most=_FRONT_ROWS)


def gaps(study: StudyRecord) -> tuple[GapTable, ...]:
    """Compare search and held-out scores measure by measure, the summary first.

    Rows have one order in all of them: best held-out summary first, those with test scores before
    finalists that were scored on ``validation`` alone.
    """
    search, validation, test = _by_number(study)
    held_out = {**validation, **test}
    summary = summary_measure(study.objectives)
    numbers = sorted(
        held_out.keys() & search.keys(),
        key=lambda n: (n not in test, -summary.sign * summary.of(held_out[n]).value, n),
    )
    chosen = chosen_number(study)

    def row(measure: Measure, number: int) -> GapRow:
        seen, held = measure.of(search[number]), measure.of(held_out[number])
        ahead = difference(seen, held)
        gap = Estimate(measure.sign * ahead.value, ahead.stderr)
        return GapRow(
            label=model_label(held_out[number].origin, number, study.noun),
            number=number,
            is_chosen=number == chosen,
            search=seen,
            validation=measure.of(validation[number]) if number in validation else None,
            test=measure.of(test[number]) if number in test else None,
            gap=gap,
            judgement=versus_noise(gap),
        )

    return tuple(
        GapTable(measure.label, tuple(row(measure, number) for number in numbers))
        for measure in measures(study.objectives)
        if numbers
    )


def _by_number(study: StudyRecord) -> list[dict[int, Standing]]:
    """Look up by trial number who was scored on the search, validation and test splits."""
    splits: tuple[Split, ...] = ("search", "validation", "test")
    return [{s.number: s for s in standings(study, split)} for split in splits]


def failures(study: StudyRecord) -> tuple[Failure, ...]:
    """Group failed and pruned trials by reason, the most frequent first."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in study.trials:
        if trial.state in ("failed", "pruned"):
            lines = (trial.error or "").strip().splitlines() or ["no reason recorded"]
            groups.setdefault((trial.state, lines[-1].strip()), []).append(trial)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return tuple(
        Failure(reason, _detail(trials[0], reason), state, tuple(t.number for t in trials))
        for (state, reason), trials in ordered
    )


def phase_times(study: StudyRecord) -> tuple[PhaseTime, ...]:
    """Add up the time per phase over all trials, in the order a trial goes through them."""
    totals = dict.fromkeys(_PHASES, 0.0)
    for trial in study.trials:
        for phase, seconds in trial.seconds.items():
            totals[phase] = totals.get(phase, 0.0) + seconds
    everything = sum(totals.values())
    return tuple(
        PhaseTime(phase, seconds, 100 * seconds / everything)
        for phase, seconds in totals.items()
        if seconds > 0
    )


def wall_clock(study: StudyRecord) -> timedelta | None:
    """Measure from the first trial asked to the last one told; pauses between runs count."""
    started = [t.started for t in study.trials if t.started]
    finished = [t.finished for t in study.trials if t.finished]
    return max(finished) - min(started) if started and finished else None


def _score_rows(
    study: StudyRecord, scored: Sequence[Standing], most: int | None = None
) -> tuple[ScoreRow, ...]:
    """Describe models, the best first; the best ``most`` of them, if it is given."""
    every = measures(study.objectives)
    summary = summary_measure(study.objectives)
    chosen = chosen_number(study)
    ordered = _ordered(scored, summary)[:most]
    whiskers = _whiskers([summary.of(s) for s in ordered], summary)
    return tuple(
        ScoreRow(
            label=model_label(s.origin, s.number, study.noun),
            number=s.number,
            is_baseline=is_baseline(s.origin),
            is_chosen=s.number == chosen,
            is_feasible=s.is_feasible,
            estimates=tuple(m.of(s) for m in every),
            whisker=whisker,
        )
        for s, whisker in zip(ordered, whiskers, strict=True)
    )


def _ordered(scored: Sequence[Standing], measure: Measure) -> list[Standing]:
    return sorted(scored, key=lambda s: (-measure.sign * measure.of(s).value, s.number))


def _whiskers(estimates: Sequence[Estimate], measure: Measure) -> list[Whisker | None]:
    """Put all error bars on one axis; smaller-is-better runs right to left, so right is better."""
    spans = [(e, 0.0 if math.isnan(e.stderr) else 2 * e.stderr) for e in estimates]
    low = min((e.value - half for e, half in spans), default=0.0)
    high = max((e.value + half for e, half in spans), default=0.0)
    if not high > low:
        return [None] * len(estimates)
    scale = 100 / (high - low)

    def draw(value: float, half: float) -> Whisker:
        offset = value - low if measure.sign > 0 else high - value
        return Whisker((offset - half) * scale, 2 * half * scale, offset * scale)

    return [draw(e.value, half) for e, half in spans]


def _detail(trial: TrialRecord, reason: str) -> str:
    text = (trial.error or "").strip()
    return text if text != reason else ""
