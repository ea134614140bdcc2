"""The command that measures noise before a search: ``calibrate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from evomerge.cli.options import (
    ExecutorName,
    ExperimentFile,
    Json,
    Overrides,
    PresetFolder,
    Workers,
    execution_overrides,
    load,
)
from evomerge.cli.terminal import console, notes, print_json, print_table

if TYPE_CHECKING:
    from evomerge.analysis.calibration import Calibration, Interval
    from evomerge.runs.calibrate import CalibratedObjective

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(calibrate)


def calibrate(
    experiment: ExperimentFile,
    set_: Overrides = None,
    executor: ExecutorName = None,
    workers: Workers = None,
    presets: PresetFolder = None,
    json: Json = False,
) -> None:
    """Measure what the objectives can tell apart, and advise, before a search."""
    from evomerge.runs.calibrate import calibrate as measure

    overrides = [*(set_ or []), *execution_overrides(executor, workers)]
    first, *_ = load(experiment, overrides, presets)
    with notes.status("scoring base, experts and averages"):
        calibrated = measure(first)
    if json:
        print_json({"objectives": [asdict(objective) for objective in calibrated]})
    else:
        _print(calibrated)


def _print(calibrated: Sequence[CalibratedObjective]) -> None:
    measured = [o.measured for o in calibrated]
    print_table(
        "Scores on search items, with 95 % intervals",
        ["model", *(o.name for o in calibrated)],
        [
            (row[0].origin, *map(_interval_text, row))
            for row in zip(*(c.models for c in measured), strict=True)
        ],
    )
    console.print()
    print_table(
        "What they tell apart",
        ["task", "metric", "items", "spread", "± items", "± merge", "SNR", "resolves"],
        [_row(c) for o in calibrated for c in (o.measured, *o.smooth)],
    )
    console.print()
    for objective in calibrated:
        console.print(f"{objective.name}: {objective.advice}", soft_wrap=True, markup=False)


def _interval_text(score: Interval) -> str:
    value = f"{score.value:.3f}"
    return value if math.isnan(score.low) else f"{value} [{score.low:.3f}, {score.high:.3f}]"


def _row(found: Calibration) -> tuple[str, ...]:
    numbers = (found.spread, found.stderr, found.jitter)
    ratio = found.signal_to_noise
    return (
        found.task,
        found.metric,
        str(found.n_items),
        *("–" if math.isnan(number) else f"{number:.3f}" for number in numbers),
        "–" if math.isnan(ratio) else f"{ratio:.1f}",
        "–" if math.isnan(found.resolution) else f"{found.resolution:.3f}",
    )
