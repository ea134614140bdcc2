"""Which texts a task that generates would count as right, by its own filters and metric."""

from __future__ import annotations

import copy
import dataclasses
import math

from evomerge.evaluation.aggregate import item_values, metric_label
from evomerge.evaluation.harness import mean, with_requests
from evomerge.evaluation.requests import Item, PreparedTask

__all__ = ["Grader"]


class Grader:
    """Scores texts as if a model had answered with them.

    Args:
        prepared: A task that generates; its own responses are left alone.
        metric: ``METRIC``, or ``METRIC,FILTER``.
    """

    def __init__(self, prepared: PreparedTask, metric: str) -> None:
        self._prepared, self._metric = prepared, metric
        name = metric.partition(",")[0]
        self._aggregate = prepared.task.aggregation().get(name, mean)
        self._sign = 1.0 if prepared.task.higher_is_better().get(name, True) else -1.0
        self._known: dict[tuple[int, str], float] = {}

    def accepts(self, item: Item, text: str) -> bool:
        """Tell whether an answer is better than none."""
        return self.grade(item, text) > self.grade(item, "")

    def grade(self, item: Item, text: str) -> float:
        """Score one answer, once; more is better, -inf where the task's code cannot score it."""
        if (item.row, text) not in self._known:
            self._known[item.row, text] = self._grade(item, text)
        return self._known[item.row, text]

    def _grade(self, item: Item, text: str) -> float:
        request = copy.copy(item.requests[0])
        request.resps, request.filtered_resps = [text] * request.repeats, {}
        task = with_requests(self._prepared.task, [request])
        alone = dataclasses.replace(item, requests=(request,))
        part = dataclasses.replace(self._prepared, task=task, items=(alone,))
        try:
            values = item_values(part)
            grades = [
                self._sign * float(self._aggregate([value]))
                for (metric, name), ((_, value),) in values.items()
                if metric_label(metric, name) == self._metric
            ]
        except Exception:  # task code may expect answers of another form
            return -math.inf
        return grades[0] if grades and math.isfinite(grades[0]) else -math.inf
