"""What can be wrong with metrics of one's own before any item is scored."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from evomerge.errors import Fault, did_you_mean
from evomerge.evaluation.harness import Group, Task, task_names
from evomerge.evaluation.own_metrics import NOISE, OwnMetric
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.evaluation.suite import Suite

__all__ = ["metric_faults", "tasks_of"]


def metric_faults(
    suite: Suite, tasks: Mapping[str, Task], groups: Mapping[str, Group], *, is_whole: bool
) -> Iterator[Fault]:
    """Find what is wrong with the metrics of a suite, by its keys; loads their functions.

    Args:
        suite: Names them.
        tasks: Its tasks that could be loaded.
        groups: Its groups.
        is_whole: Whether all tasks could be.
    """
    noise = {f"{name}{NOISE}" for name, own in suite.metrics.items() if own.has_noise}
    for metric, own in suite.metrics.items():
        path = ("metrics", metric)
        if not re.fullmatch(r"[A-Za-z]\w*", metric):
            text = f"expected a name of letters, digits and _, got {metric!r:.60}"
            yield Fault(path, text)
        yield from (fault.under(*path) for fault in own.faults(metric, allow_code=suite.allow_code))
        known = [*tasks, *groups]
        for unknown in [name for name in own.tasks or () if name not in known and is_whole]:
            text = f"expected a task or group out of {', '.join(known)}, got {unknown!r:.60}"
            yield Fault((*path, "tasks"), text + did_you_mean(unknown, known))
        for name in tasks_of(own, tasks, groups):
            yield from (
                Fault(path, text) for text in _misfits(metric, own, name, tasks[name], noise)
            )


def tasks_of(
    own: OwnMetric, tasks: Mapping[str, Task], groups: Mapping[str, Group]
) -> tuple[str, ...]:
    """List the tasks that have a metric of one's own."""
    if own.tasks is None:
        return tuple(tasks)
    named = {task for name in own.tasks if name in groups for task in task_names(groups[name])}
    return tuple(name for name in tasks if name in named or name in own.tasks)


def _misfits(
    metric: str, own: OwnMetric, name: str, task: Task, noise: Collection[str]
) -> Iterator[str]:
    if own.reads_texts and task.OUTPUT_TYPE != "generate_until":
        yield (
            f"expected tasks that generate text, got {name!r} ({task.OUTPUT_TYPE}); say which "
            "tasks have this metric (tasks)"
        )
    if metric in {*task.aggregation(), *SMOOTH_METRICS, *noise}:
        yield f"task {name!r} has a metric {metric!r} already; call this one otherwise"
