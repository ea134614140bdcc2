"""The numbers at the top of the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from evomerge.analysis.front import complete, front, hypervolume
from evomerge.analysis.report.numbers import format_duration, format_number
from evomerge.analysis.report.tables import wall_clock
from evomerge.origins import is_single_model
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Tile", "tiles"]


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page.

    Attributes:
        label: What it counts.
        value: The number.
        note: What goes with it, in small print.
    """

    label: str
    value: str
    note: str


def tiles(study: StudyRecord) -> tuple[Tile, ...]:
    """Sum a study up: trials, front, hypervolume, time."""
    states = Counter(trial.state for trial in study.trials)
    others = [f"{states[s]} {s}" for s in ("failed", "pruned", "running") if states[s]]
    found = [
        Tile(
            "complete trials",
            str(states["complete"]),
            ", ".join([_budget(study), *others]),
        )
    ]
    if study.constraints:
        infeasible = sum(not t.is_feasible for t in complete(study))
        found.append(Tile("infeasible", str(infeasible), "; ".join(study.constraints)))
    if complete(study):
        merges = [t for t in front(study) if not is_single_model(t.origin)]
        found.append(
            Tile("on the front", str(len(front(study))), f"{len(merges)} of them {study.noun}s")
        )
        found.append(
            Tile(
                "hypervolume", format_number(hypervolume(study)), "1 = every best baseline at once"
            )
        )
    return (*found, *_time_tiles(study))


def _budget(study: StudyRecord) -> str:
    """Trials that climb count as several."""
    climbed = sum(trial.has_climbed for trial in study.trials)
    errors = [trial.climb_error for trial in study.trials if trial.climb_error is not None]
    if not climbed and not errors:
        return f"budget {study.n_trials}"
    failed = f", {len(errors)} failed to (the last one with: {errors[-1]})" if errors else ""
    return (
        f"{climbed} of them climbed on along slopes{failed}, "
        f"{study.evaluations:g} of {study.n_trials} evaluations"
    )


def _time_tiles(study: StudyRecord) -> tuple[Tile, ...]:
    clock = wall_clock(study)
    if clock is None or not clock.total_seconds() > 0:
        return ()
    wall = clock.total_seconds()
    work = sum(sum(trial.seconds.values()) for trial in study.trials)
    finished = [trial for trial in study.trials if trial.state != "running"]
    return (
        Tile("from first to last trial", format_duration(wall), f"{format_duration(work)} of work"),
        Tile("trials per hour", _rate(3600 * len(finished) / wall), _per_trial(finished)),
    )


def _per_trial(finished: list[TrialRecord]) -> str:
    seconds = [sum(trial.seconds.values()) for trial in finished]
    return f"{format_duration(sum(seconds) / len(seconds))} each" if any(seconds) else ""


def _rate(per_hour: float) -> str:
    return f"{per_hour:,.0f}" if per_hour >= 10 else f"{per_hour:.1f}"
