"""What a study keeps with each Optuna trial, and trials as records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge.samplers.learned import PARTIAL
from evomerge.study.records import Objective, Partial, TrialRecord

__all__ = [
    "DRIVER",
    "ERROR",
    "N_ITEMS",
    "ORIGIN",
    "PARTIAL",
    "RECIPE",
    "SECONDS",
    "STDERR",
    "TRACEBACK",
    "make_objectives",
    "trial_record",
    "trial_records",
]

# Names of trial user attributes.
ORIGIN = "origin"
RECIPE = "recipe"
STDERR = "stderr"
N_ITEMS = "n_items"
SECONDS = "seconds"
ERROR = "error"
TRACEBACK = "traceback"
DRIVER = "driver"  # who runs it: a driver that comes back re-runs only its own

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


def trial_records(study: optuna.Study) -> tuple[TrialRecord, ...]:
    """Read every trial that has been asked, by number."""
    trials = study.get_trials(deepcopy=False)
    return tuple(trial_record(trial) for trial in trials if trial.state != TrialState.WAITING)


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """Read one trial."""
    attrs: dict[str, Any] = trial.user_attrs
    complete = trial.state == TrialState.COMPLETE
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],  # type: ignore[arg-type]
        origin=attrs.get(ORIGIN, "search"),
        values=tuple(trial.values) if complete else (),
        stderr=_floats(attrs.get(STDERR, ())) if complete else (),
        params=dict(trial.params),
        recipe=attrs.get(RECIPE, {}),
        seconds=attrs.get(SECONDS, {}),
        error=attrs.get(ERROR),
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        n_items=tuple(attrs.get(N_ITEMS, ())) if complete else (),
        partial=_partial(attrs[PARTIAL]) if PARTIAL in attrs else None,
    )


def _partial(attr: dict[str, Any]) -> Partial:
    return Partial(tuple(attr["values"]), tuple(attr["stderr"]), tuple(attr["n_items"]))


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(float("nan") if value is None else value for value in values)


def objective_name(task: str, metric: str, tasks: Sequence[str]) -> str:
    """Name an objective: the task, with the metric where the task has several objectives."""
    return task if list(tasks).count(task) == 1 else f"{task}/{metric}"


def make_objectives(wanted: Sequence[tuple[str, str, str]]) -> tuple[Objective, ...]:
    """Build objectives from (task, metric, direction) triples, with unique names."""
    tasks = [task for task, _, _ in wanted]
    return tuple(
        Objective(task, metric, direction, objective_name(task, metric, tasks))  # type: ignore[arg-type]
        for task, metric, direction in wanted
    )
