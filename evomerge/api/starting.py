"""A first experiment: the space, items and budget that fit experts, tasks and time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.config.experiment import Experiment
from evomerge.errors import ConfigError, brief
from evomerge.evaluation.catalogue import TaskCatalogue, TaskMetric
from evomerge.evaluation.suite import Suite
from evomerge.models.reference import absolute_reference, relative_reference
from evomerge.plain_yaml import dump_yaml
from evomerge.progress import duration_text
from evomerge.runs.loaded import Loaded
from evomerge.runs.pace import Pace, measure_pace

__all__ = ["Wanted", "first_experiment"]

_ITEMS = 200  # of a task: an accuracy is then known to 3.5 %, and its splits stay small
_FEWEST_ITEMS, _FEWEST_TRIALS = 25, 20
_MOST_OBJECTIVES = 5  # a front in more directions is nearly all of the trials
_GLOBAL, _LAYERWISE = ("global_linear", 60), ("layerwise_task_arithmetic", 300)  # and its trials
_ENOUGH = 150  # trials for which genes by layer are worth while


@dataclass(frozen=True)
class Wanted:
    """What a person wants a first experiment to be about.

    Attributes:
        base: Model reference; relative folders start at the current one.
        experts: Likewise, by name.
        tasks: lm-eval tasks or groups.
        include_path: Folder of task YAML.
        hours: How long the search may take.
    """

    base: str
    experts: Mapping[str, str]
    tasks: Sequence[str]
    include_path: Path | None = None
    hours: float = 1.0


@dataclass(frozen=True)
class _Plan:
    """What fits: a space, trials for it, and at most so many items of each task."""

    space: str
    trials: int
    limit: int
    pace: Pace


def first_experiment(wanted: Wanted, out: Path) -> str:
    """Write a first experiment, after a trial has been timed here.

    Args:
        wanted: What it is about.
        out: The file to be; folders are named from where it lies.

    Returns:
        Commented YAML.

    Raises:
        EvomergeError: Models or tasks are missing, or do not fit together.
    """
    include = None if wanted.include_path is None else wanted.include_path.resolve()
    catalogue = TaskCatalogue.of([Suite("--tasks", tuple(wanted.tasks), include, limit=_ITEMS)])
    objectives = _objectives(catalogue.measures)
    models = {
        "base": absolute_reference(wanted.base, Path.cwd()),
        "experts": {n: absolute_reference(r, Path.cwd()) for n, r in wanted.experts.items()},
    }
    suite = {"tasks": list(wanted.tasks), "limit": _ITEMS}
    content = {
        "models": models,
        "search_space": _GLOBAL[0],
        "evaluators": [suite if include is None else {**suite, "include_path": str(include)}],
        "objectives": [{"task": t, "metric": m, "direction": d} for t, m, d in objectives],
    }
    loaded = Loaded.of(Experiment.from_dict(content))
    plan = _plan(measure_pace(loaded), wanted.hours, len(wanted.experts))
    return _text(wanted, out, plan, objectives, catalogue.measures)


def _objectives(measures: Sequence[TaskMetric]) -> list[TaskMetric]:
    """Take the first metric of each task."""
    first = {task: (task, metric, direction) for task, metric, direction in reversed(measures)}
    if not 0 < len(first) <= _MOST_OBJECTIVES:
        raise ConfigError(
            f"expected 1 to {_MOST_OBJECTIVES} tasks, or groups with metrics of their own, got "
            f"{len(first)}: {brief(', '.join(first))}"
        )
    return [first[task] for task in dict.fromkeys(task for task, _, _ in measures)]


def _plan(pace: Pace, hours: float, n_experts: int) -> _Plan:
    """Choose what fits; where time is short fewer items come before fewer trials."""
    affordable = hours * 3600 / pace.seconds(1)
    share = min(1.0, affordable / _GLOBAL[1])
    limit = max(_FEWEST_ITEMS, int(_ITEMS * share))
    affordable *= _ITEMS / limit
    is_layerwise = n_experts > 1 and affordable >= _ENOUGH
    space, most = _LAYERWISE if is_layerwise else _GLOBAL
    trials = max(_FEWEST_TRIALS, min(most, int(affordable)))
    return _Plan(space, trials, limit, Pace(pace.trial * limit / _ITEMS, pace.n_workers))


def _text(
    wanted: Wanted,
    out: Path,
    plan: _Plan,
    objectives: Sequence[TaskMetric],
    measures: Sequence[TaskMetric],
) -> str:
    beside = out.resolve().parent
    experts = [f"    {_yaml(name)}: {_model(ref, beside)}" for name, ref in wanted.experts.items()]
    include = []
    if wanted.include_path is not None:
        include = [f"    include_path: {_yaml(os.path.relpath(wanted.include_path, beside))}"]
    took = duration_text(plan.pace.seconds(plan.trials))
    lines = [
        f"# A first experiment, about {took} on {plan.pace.n_workers} workers: a trial was timed.",
        f"# Check it: evomerge check {out.name} --time; run it: evomerge run {out.name}",
        "models:",
        f"  base: {_model(wanted.base, beside)}",
        "  experts:",
        *experts,
        f"search_space: {plan.space}      # {_reason(plan)}; others: evomerge presets list",
        "evaluators:",
        f"  - tasks: {_yaml(list(wanted.tasks))}",
        *include,
        "    # shares of the items that each task is scored on: searched, to choose, to report",
        "    splits: {search: 0.6, validation: 0.2, test: 0.2}",
        f"    limit: {plan.limit}                # items of each task and split, at most",
        "objectives:",
        *(_objective(objective, measures) for objective in objectives),
        "sampler: auto                  # by genes, objectives and budget; see evomerge samplers",
        f"budget: {{trials: {plan.trials}, wall_clock: {_yaml(f'{wanted.hours:g}h')}}}",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"


def _reason(plan: _Plan) -> str:
    few = "a coefficient per expert" if plan.space == _GLOBAL[0] else "coefficients by layer"
    return f"{few}, for {plan.trials} trials"


def _objective(objective: TaskMetric, measures: Sequence[TaskMetric]) -> str:
    task, metric, direction = objective
    way = "" if direction == "maximize" else f", direction: {direction}"
    others = [m for t, m, _ in measures if t == task and m != metric]
    note = f"   # or {', '.join(others)}" if others else ""
    return f"  - {{task: {_yaml(task)}, metric: {_yaml(metric)}{way}}}{note}"


def _model(reference: str, beside: Path) -> str:
    return _yaml(relative_reference(absolute_reference(reference, Path.cwd()), beside))


def _yaml(value: str | Sequence[str]) -> str:
    """Write text, or a list of texts, on one line."""
    if not isinstance(value, str):
        return f"[{', '.join(map(_yaml, value))}]"
    plain = dump_yaml([value]).strip()[1:-1]
    return json.dumps(value) if "\n" in plain else plain
