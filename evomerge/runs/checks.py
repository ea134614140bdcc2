"""What can be wrong with parts that are well-formed each by itself; one line per fault."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from evomerge import origins
from evomerge.config.experiment import Experiment
from evomerge.errors import did_you_mean
from evomerge.evaluation.suite import SPLITS, Suite
from evomerge.execution.costs import COST, Cost, cost_fault
from evomerge.runs.parts import costs_of
from evomerge.space.baselines import Baseline
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.study.constraints import Constraint
from evomerge.study.records import Objective

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue

__all__ = [
    "bound_faults",
    "distance_faults",
    "engine_faults",
    "final_split_faults",
    "metric_faults",
    "unreached_faults",
]


def metric_faults(
    objectives: tuple[Objective, ...],
    constraints: tuple[Constraint, ...],
    tasks: TaskCatalogue,
    models: ModelSet,
    where: str,
) -> Iterator[str]:
    """Tasks and metrics must exist, and the search may not see what is only reported."""
    if tasks.faults:
        yield from (f"{where}: {line}" for line in tasks.faults)
        return
    experts = tuple(models.experts)
    for i, objective in enumerate(objectives):
        place = f"{where}: objectives[{i}]"
        if objective in objectives[:i]:
            yield f"{place}: {objective.task} {objective.metric} is an objective already"
        yield from _metric_fault(objective, tasks, experts, place)
    for constraint in constraints:
        place = f"{where}: constraint '{constraint.name}'"
        yield from _metric_fault(constraint, tasks, experts, place)
    if "output_tokens" in costs_of(objectives, constraints) and not tasks.has_answers:
        yield f"{where}: cost output_tokens: expected a task that generates text, got none"


def _metric_fault(
    wanted: Objective | Constraint, tasks: TaskCatalogue, experts: tuple[str, ...], place: str
) -> Iterator[str]:
    task, metric, known = wanted.task, wanted.metric, tasks.metrics
    if task == COST:
        if fault := cost_fault(metric, experts):
            yield f"{place}.cost: {fault}"
    elif task in tasks.reported:
        yield (
            f"{place}.task: {task} is in a report_only evaluator, which the search must not see; "
            "drop report_only there, or choose another task"
        )
    elif task not in known:
        yield f"{place}.task: {_expected(task, tuple(known), 'task')}"
    elif metric not in known[task]:
        yield f"{place}.metric: {_expected(metric, known[task], 'metric')}"


def bound_faults(
    constraints: tuple[Constraint, ...], experiment: Experiment, where: str
) -> Iterator[str]:
    """What a bound refers to must be among the seeds."""
    seeds, models = experiment.seeds, experiment.models
    experts = [name for name in models.experts if name not in models.winners]
    parents = (origins.BASE, *map(origins.expert, experts)) if seeds.parents else ()
    known = (*parents, *((origins.UNIFORM,) if seeds.averages and len(models.experts) > 1 else ()))
    for constraint in constraints:
        reference = constraint.bound.reference
        if reference is not None and reference not in known:
            place = f"{where}: constraint '{constraint.name}'"
            yield f"{place}: {_expected(reference, known, 'baseline')}"


def unreached_faults(
    constraints: tuple[Constraint, ...], found: tuple[Baseline, ...], n_trials: int, where: str
) -> Iterator[str]:
    """A constraint holds nothing if the budget ends before the baseline it refers to."""
    reached = [baseline.origin for baseline in found[:n_trials]]
    for constraint in constraints:
        reference = constraint.bound.reference
        if reference is not None and reference not in reached:
            yield (
                f"{where}: constraint '{constraint.name}': expected a budget of at least "
                f"{len(found)} trials, to score {reference} before the search, got {n_trials}"
            )


def distance_faults(space: SearchSpace | None, costs: tuple[str, ...], where: str) -> Iterator[str]:
    """A distance needs layers that match those of its reference."""
    if _has_paths(space) and any(Cost.of(cost).name == "distance" for cost in costs):
        yield (
            f"{where}: cost distance: expected a space without data-flow paths, whose layers match "
            "no reference's; use the cost kl"
        )


def engine_faults(experiment: Experiment, space: SearchSpace | None, where: str) -> Iterator[str]:
    """What stands in the way of vLLM."""
    import torch

    if experiment.engine != "vllm":
        return
    if find_spec("vllm") is None:
        yield f"{where}: engine: vllm is not installed; pip install 'evomerge[vllm]'"
    if not torch.cuda.device_count() or experiment.execution.gpus_per_worker == 0:
        yield f"{where}: engine: expected transformers for workers without a GPU, got vllm"
    if _has_paths(space):
        yield (
            f"{where}: engine: expected transformers for a space with data-flow paths, which vLLM "
            "cannot run, got vllm"
        )


def final_split_faults(
    experiment: Experiment, suites: tuple[Suite, ...], where: str
) -> Iterator[str]:
    """The finals need held-out items, and suites that are only reported need the finals."""
    for suite in suites:
        missing = [split for split in SPLITS if split not in suite.splits]
        if experiment.finalists and missing and not suite.report_only:
            yield (
                f"{where}: {suite.name}.splits: expected {', '.join(SPLITS)}, got no "
                f"{' and no '.join(missing)}; add them, or set finalists: 0 to do without the "
                "held-out finals"
            )
        if suite.report_only and not experiment.finalists:
            yield (
                f"{where}: {suite.name}.report_only: expected finalists of at least 1, because the "
                "finals alone score what the search never sees, got 0"
            )


def _has_paths(space: SearchSpace | None) -> bool:
    return space is not None and bool(space.recipe(space.defaults).path)


def _expected(got: str, known: tuple[str, ...], what: str) -> str:
    return f"expected a {what} out of {', '.join(known)}, got {got!r}{did_you_mean(got, known)}"
