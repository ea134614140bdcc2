"""What a study keeps with each Optuna trial, and trials as records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge.evaluation.scores import Sample
from evomerge.execution.costs import COST
from evomerge.models.reference import ModelRef, reference_data
from evomerge.origins import SEARCH
from evomerge.recipe.path import BASE
from evomerge.samplers.learned import CONSTRAINTS, PARTIAL
from evomerge.study.constraints import Constraint, violations
from evomerge.study.records import Direction, Objective, Partial, TrialRecord, TrialStateName

__all__ = [
    "CONSTRAINTS",
    "DEVICE",
    "DRIVER",
    "ERROR",
    "MEASURED",
    "N_ITEMS",
    "N_SCORES",
    "ORIGIN",
    "PARTIAL",
    "PROPOSAL",
    "RECIPE",
    "SAMPLES",
    "SECONDS",
    "STDERR",
    "TRACEBACK",
    "located_recipe",
    "make_objectives",
    "measured_baselines",
    "objective_samples",
    "trial_record",
    "trial_records",
]

# Names of trial user attributes.
ORIGIN = "origin"
PROPOSAL = "proposal"  # the params as they were drawn; only where they are stored one by one
RECIPE = "recipe"
STDERR = "stderr"
N_ITEMS = "n_items"
N_SCORES = "n_scores"
SECONDS = "seconds"
SAMPLES = "samples"  # an item by objective; only of baselines
DEVICE = "device"  # what the candidate ran on when it was scored
ERROR = "error"
TRACEBACK = "traceback"
MEASURED = "measured"  # value per constraint
DRIVER = "driver"  # who runs it: a driver that comes back re-runs only its own

_STATES: Mapping[TrialState, TrialStateName] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


def trial_records(
    study: optuna.Study,
    constraints: Sequence[Constraint] = (),
    models: Mapping[str, ModelRef] = {},
) -> tuple[TrialRecord, ...]:
    """Read every trial that has been asked, by number.

    Constraints are evaluated anew: a trial told before the baselines that bound it were known is
    held to them, too.

    Args:
        study: The Optuna study.
        constraints: In the study's order.
        models: Where base and experts are now, by name.
    """
    trials = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
    known = measured_baselines(trials)

    def record(trial: FrozenTrial) -> TrialRecord:
        read = trial_record(trial)
        read = replace(read, recipe=located_recipe(read.recipe, models))
        if MEASURED not in trial.user_attrs:
            return read
        measured = trial.user_attrs[MEASURED]
        return replace(read, violations=violations(constraints, measured, known))

    return tuple(map(record, trials))


def located_recipe(recipe: Mapping[str, Any], models: Mapping[str, ModelRef]) -> Mapping[str, Any]:
    """Point a stored recipe to where its models are now: they may have moved since.

    Args:
        recipe: As ``Recipe.as_data`` gave it; empty if none was built.
        models: By name.
    """
    moved: dict[str, Any] = {}
    if BASE in recipe.keys() & models.keys():
        moved[BASE] = models[BASE]
    if "experts" in recipe:
        known = {name: reference_data(models[name]) for name in recipe["experts"] if name in models}
        moved["experts"] = {**recipe["experts"], **known}
    return {**recipe, **moved}


def measured_baselines(trials: Iterable[FrozenTrial]) -> list[tuple[str, list[float]]]:
    """List the baselines that constraints may refer to: origin, and value per constraint."""
    return [
        (trial.user_attrs[ORIGIN], trial.user_attrs[MEASURED])
        for trial in trials
        if trial.state == TrialState.COMPLETE
        and MEASURED in trial.user_attrs
        and trial.user_attrs[ORIGIN] != SEARCH
    ]


def objective_samples(
    objectives: Sequence[Objective], samples: Mapping[str, Sample]
) -> dict[str, dict[str, str]]:
    """Choose a sample for each objective, as plain data: of its task, or the first of its group."""
    found = {}
    for objective in objectives:
        own = (task for task in samples if task.startswith(objective.task))
        task = objective.task if objective.task in samples else next(own, None)
        if task is not None:
            found[objective.name] = asdict(samples[task])
    return found


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """Read one trial."""
    attrs: dict[str, Any] = trial.user_attrs
    complete = trial.state == TrialState.COMPLETE
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        origin=attrs.get(ORIGIN, SEARCH),
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
        violations=tuple(attrs.get(CONSTRAINTS, ())),
        n_scores=attrs.get(N_SCORES, 0) if trial.state.is_finished() else 0,
        driver=attrs.get(DRIVER),
        device=attrs.get(DEVICE),
        samples={name: Sample(**sample) for name, sample in attrs.get(SAMPLES, {}).items()},
    )


def _partial(attr: dict[str, Any]) -> Partial:
    return Partial(tuple(attr["values"]), tuple(attr["stderr"]), tuple(attr["n_items"]))


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(float("nan") if value is None else value for value in values)


def _objective_name(task: str, metric: str, tasks: Sequence[str]) -> str:
    """Name an objective: the task, with the metric where the task has several objectives.

    A cost goes by its metric alone.
    """
    if task == COST:
        return metric
    return task if list(tasks).count(task) == 1 else f"{task}/{metric}"


def make_objectives(wanted: Sequence[tuple[str, str, Direction]]) -> tuple[Objective, ...]:
    """Build objectives from (task, metric, direction) triples, with unique names."""
    tasks = [task for task, _, _ in wanted]
    return tuple(
        Objective(task, metric, direction, _objective_name(task, metric, tasks))
        for task, metric, direction in wanted
    )
