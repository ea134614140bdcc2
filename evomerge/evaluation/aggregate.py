"""From responses to numbers: filters, per-item metrics, aggregation over tasks and groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from statistics import fmean
from typing import Any

import numpy as np

from evomerge.evaluation.harness import (
    Group,
    Task,
    mean,
    sample_pipelines,
    standard_error,
)
from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.scores import ItemScore, MetricValue

__all__ = [
    "ItemCost",
    "Values",
    "aggregate_group",
    "aggregate_task",
    "item_scores",
    "item_values",
    "metric_label",
]

# (metric, filter) -> (row, value) of every item. A corpus metric such as BLEU keeps a pair of texts
# per item, not a number: what a value is, only the metric's own aggregation knows.
Values = Mapping[tuple[str, str], Sequence[tuple[int, Any]]]

ItemCost = tuple[int, float]  # tokens and seconds of one item


def item_values(prepared: PreparedTask) -> Values:
    """Filter the responses of a task and score every item with every filter and metric."""
    prepared.task.apply_filters()
    values: dict[tuple[str, str], list[tuple[int, Any]]] = defaultdict(list)
    several = sample_pipelines(prepared.task)
    for name in prepared.items[0].requests[0].filtered_resps:
        for item in prepared.items:
            responses = [request.filtered_resps[name] for request in item.requests]
            if name in several:
                found = _over_samples(prepared.task, item, responses, several[name])
            else:
                scored = prepared.task.process_results(item.doc, responses)
                found = {(metric, name): value for metric, value in scored.items()}
            for key, value in found.items():
                values[key].append((item.row, value))
    return values


def _over_samples(
    task: Task, item: Item, responses: Sequence[Sequence[object]], prefix: str
) -> dict[tuple[str, str], float]:
    """Score every answer to an item: their mean, and the best of them where more is better.

    Only metrics that are means over items have these.
    """
    each = [task.process_results(item.doc, list(one)) for one in zip(*responses, strict=True)]
    aggregations, is_better = task.aggregation(), task.higher_is_better()
    found: dict[tuple[str, str], float] = {}
    for metric in each[0]:
        if aggregations.get(metric, mean) is mean:
            values = [float(scored[metric]) for scored in each]
            found[metric, f"{prefix}mean@{len(each)}"] = fmean(values)
            if is_better.get(metric, True):
                found[metric, f"{prefix}pass@{len(each)}"] = max(values)
    return found


def aggregate_task(prepared: PreparedTask, values: Values) -> dict[str, MetricValue]:
    """Aggregate each metric of a task over its items, with the task's own aggregation."""
    aggregations = prepared.task.aggregation()
    metrics = {}
    for (metric, name), pairs in values.items():
        scores = [value for _, value in pairs]
        # A function of the task's own may return metrics it never declared; lm-eval averages them.
        aggregation = aggregations.get(metric, mean)
        metrics[metric_label(metric, name)] = MetricValue(
            float(aggregation(scores)), standard_error(aggregation, scores), len(scores)
        )
    return metrics


def aggregate_group(
    group: Group, tasks: Mapping[str, Mapping[str, MetricValue]]
) -> dict[str, MetricValue]:
    """Aggregate a group over its tasks the way its own ``aggregate_metric_list`` says.

    Args:
        group: An lm-eval group.
        tasks: Metrics of at least the tasks of the group.

    Returns:
        Empty for a group that only collects tasks.
    """
    table = group.aggregate({name: _as_lm_eval(metrics) for name, metrics in tasks.items()})
    metrics = {}
    for key, n in table.get("sample_count", {}).items():
        metric, name = key.split(",", 1)
        stderr = table[f"{metric}_stderr,{name}"]
        metrics[metric_label(metric, name)] = MetricValue(
            float(table[key]), math.nan if stderr == "N/A" else float(stderr), n
        )
    return metrics


def item_scores(
    prepared: PreparedTask,
    values: Values,
    costs: Mapping[int, ItemCost],
    smooth: Mapping[int, float],
) -> Iterator[ItemScore]:
    """Yield the per-item values that are numbers, with what each item cost.

    Args:
        prepared: The task.
        values: What ``item_values`` returned.
        costs: By row: tokens and seconds.
        smooth: By row: how likely the gold answer was.
    """
    for (metric, name), pairs in values.items():
        label = metric_label(metric, name)
        for row, value in pairs:
            if isinstance(value, Real | np.bool_):
                likely = smooth.get(row)
                yield ItemScore(prepared.name, row, label, float(value), likely, *costs[row])


def metric_label(metric: str, name: str) -> str:
    """Join a metric and a filter the way every record of ours names them."""
    return metric if name == "none" else f"{metric},{name}"


def _as_lm_eval(metrics: Mapping[str, MetricValue]) -> dict[str, object]:
    """A task's row of lm-eval's results table, which groups are computed from."""
    row: dict[str, object] = {"sample_len": max((v.n for v in metrics.values()), default=0)}
    for label, value in metrics.items():
        metric, _, name = label.partition(",")
        row[f"{metric},{name or 'none'}"] = value.value
        stderr = "N/A" if math.isnan(value.stderr) else value.stderr
        row[f"{metric}_stderr,{name or 'none'}"] = stderr
    return row
