"""What a study found, printed: the front, held-out scores, gains, what was forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.markup import escape

from evomerge.cli.terminal import console, print_table, value_text
from evomerge.origins import is_baseline

if TYPE_CHECKING:
    import pandas as pd

    from evomerge.analysis.forgetting import Change, ForgettingRow
    from evomerge.analysis.held_out import HeldOutRow, HeldOutScore
    from evomerge.analysis.paired import PairedRow
    from evomerge.study.records import FinalRecord, StudyRecord, TrialRecord

__all__ = [
    "front_data",
    "headings",
    "print_forgetting",
    "print_front",
    "print_held_out",
    "print_no_gain",
    "print_paired",
    "print_unenforced",
]


def front_data(study: StudyRecord, items: pd.DataFrame) -> dict[str, object]:
    """Describe the front as plain data for JSON; ``items`` as ``ItemStore.read`` returns them."""
    from evomerge.analysis.front import front as front_of
    from evomerge.analysis.gain import no_gain
    from evomerge.study.constraints import finals_note

    return {
        "objectives": [{"name": o.name, "direction": o.direction} for o in study.objectives],
        "constraints": study.constraints,
        "unenforced": study.unenforced,
        "finals_note": finals_note(study.finals, study.constraints),
        "no_gain": no_gain(study, items),
        "trials": [
            {
                "number": t.number,
                "feasible": t.is_feasible,
                "values": t.values,
                "stderr": t.stderr,
                "recipe": dict(t.recipe),
            }
            for t in front_of(study)
        ],
    }


def print_unenforced(constraints: Sequence[str]) -> None:
    """Print the constraints that hold nothing, and why."""
    for constraint in constraints:
        console.print(f"[bold red]NOT ENFORCED[/] {escape(constraint)}", soft_wrap=True)


def print_no_gain(said: str | None) -> None:
    """Print that no merge is better than what was there before, if so."""
    if said:
        console.print(said, style="bold yellow", soft_wrap=True, markup=False)


def print_front(study: StudyRecord, items: pd.DataFrame, *, most: int | None = None) -> None:
    """Print the front, the held-out scores if there are any, and whether nothing was gained.

    Args:
        study: The study.
        items: As ``ItemStore.read`` returns them.
        most: Members to print of a larger front: its ends, the knee, and some between; all.
    """
    from evomerge.analysis.front import front as front_of
    from evomerge.analysis.gain import no_gain
    from evomerge.analysis.picking import pick as pick_trial
    from evomerge.analysis.silence import silences

    members = front_of(study)
    print_unenforced(study.unenforced)
    for silence in silences(study):
        console.print(silence.line, style="bold yellow", soft_wrap=True, markup=False)
    if not members:
        console.print("no trial is complete yet")
        return
    if not members[0].is_feasible:
        wanted = "; ".join(study.constraints)
        console.print(f"no trial is feasible ({wanted}); the least infeasible:", soft_wrap=True)
    names = headings(study)
    knee = pick_trial(study, "knee")
    ordered = sorted(members, key=lambda t: t.values)
    shown = _thinned(ordered, most or len(ordered), knee)
    rows: list[tuple[str, ...]] = []
    for trial in shown:
        mark = " (knee)" if trial.number == knee.number else ""
        label = f"#{trial.number} {trial.origin}{mark}"
        rows.append((label, *_texts(trial.values, trial.stderr)))
    some = f" ({len(shown)} of {len(ordered)} trials)" if len(shown) < len(ordered) else ""
    print_table(f"Front, on search items{some}", ["trial", *names], rows)
    if study.finals:
        console.print()
        _print_finals(study)
    print_no_gain(no_gain(study, items))


def _thinned(trials: Sequence[TrialRecord], most: int, knee: TrialRecord) -> list[TrialRecord]:
    """Leave evenly spaced trials, at most ``most`` and the knee."""
    if len(trials) <= most:
        return list(trials)
    kept = {round(i * (len(trials) - 1) / (most - 1)) for i in range(most)}
    return [t for i, t in enumerate(trials) if i in kept or t.number == knee.number]


def _print_finals(study: StudyRecord) -> None:
    from evomerge.analysis.intervals import mean
    from evomerge.study.constraints import finals_note
    from evomerge.study.records import has_mean, mean_name, shares

    with_mean = has_mean(study.objectives)
    rows: list[tuple[str, ...]] = []
    bold = None
    for final in (f for f in study.finals if f.split == "test"):
        if final.chosen:
            bold = len(rows)
        row = [_label(final, study.noun), *_texts(final.values, final.stderr)]
        if with_mean:
            overall = mean(final.values, final.stderr, shares(study.objectives))
            row.append(value_text(overall.value, overall.stderr))
        rows.append(tuple(row))
    columns = ["model", *headings(study), *([mean_name(study.objectives)] if with_mean else [])]
    title = "Test items, never searched; validation items chose"
    print_table(title, columns, rows, bold=bold)
    if note := finals_note(study.finals, study.constraints):
        console.print(note, style="bold red", soft_wrap=True)


def _label(final: FinalRecord | HeldOutRow | ForgettingRow, noun: str) -> str:
    if is_baseline(final.origin):
        return final.origin + (" (chosen)" if final.chosen else "")
    return f"best {noun} (#{final.number})"


def print_held_out(rows: Sequence[HeldOutRow], study: StudyRecord) -> None:
    """Print test scores with 95 % intervals, and how far each gets from base to best expert."""
    if not rows:
        return
    console.print()
    texts = [(_label(row, study.noun), *map(_interval_text, row.scores)) for row in rows]
    title = "95 % intervals; base to best expert is 0 to 100 %"
    bold = next((i for i, row in enumerate(rows) if row.chosen), None)
    print_table(title, ["model", *headings(study)], texts, bold=bold)


def _interval_text(score: HeldOutScore) -> str:
    bounds = f"{score.value:.3f}"
    if not math.isnan(score.low):
        bounds = f"{score.low:.3f}–{score.high:.3f}"
    return bounds if math.isnan(score.normalised) else f"{bounds}, {score.normalised:.0%}"


def print_paired(rows: Sequence[PairedRow], noun: str) -> None:
    """Print what the best merge gained over base and experts, and what it broke.

    Args:
        rows: By reference and objective.
        noun: What the search makes; see ``StudyRecord.noun``.
    """
    if not rows:
        return
    console.print()
    texts = [
        (
            row.reference,
            row.objective,
            value_text(row.gain.value, row.gain.stderr),
            "" if math.isnan(row.negative_flips) else f"{row.negative_flips:.1%}",
        )
        for row in rows
    ]
    title = f"The best {noun} on the same test items, paired"
    print_table(
        title, ["against", "objective", f"{noun} minus it", "right there, wrong here"], texts
    )


def print_forgetting(rows: Sequence[ForgettingRow], noun: str) -> None:
    """Print what became of the tasks that the search never saw, metric by metric.

    Args:
        rows: A row per model and metric.
        noun: What the search makes; see ``StudyRecord.noun``.
    """
    for (measure, direction), group in groupby(rows, key=lambda row: (row.measure, row.direction)):
        console.print()
        texts = [
            (
                _label(row, noun),
                f"{row.value:.3f}",
                "" if math.isnan(row.normalised) else f"{row.normalised:.0%}",
                _change_text(row.versus_base),
                _change_text(row.versus_expert),
            )
            for row in group
        ]
        name = measure + (" ↓" if direction == "minimize" else "")
        title = f"{name}, never searched; differences with 95 % intervals"
        columns = ["model", "score", "of base", "minus base", "minus best expert"]
        print_table(title, columns, texts)


def _change_text(change: Change | None) -> str:
    if change is None:
        return ""
    bounds = "" if math.isnan(change.low) else f" [{change.low:+.2f}, {change.high:+.2f}]"
    return f"{change.value:+.3f}{bounds}"


def headings(study: StudyRecord) -> list[str]:
    """Name the objectives as above columns."""
    return [objective.heading for objective in study.objectives]


def _texts(values: tuple[float, ...], stderr: tuple[float, ...]) -> list[str]:
    return [value_text(v, e) for v, e in zip(values, stderr, strict=True)]
