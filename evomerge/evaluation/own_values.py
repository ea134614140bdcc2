"""The values of metrics of one's own: a task's answers in, what each metric says of them out."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation.aggregate import Values, metric_label
from evomerge.evaluation.harness import GENERATION, Task, single_pipelines
from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.scored_items import AnsweredItem
from evomerge.evaluation.scores import Verdict
from evomerge.evaluation.smooth import gold_choices, gold_texts

__all__ = ["own_names", "own_values", "trial_faults"]

_NOISE = "_noise"  # ends the name of the metric that tells how far verdicts on one answer differ


def own_names(prepared: PreparedTask) -> list[str]:
    """Name the metrics of one's own that a task has, and those of their noise."""
    noisy = [f"{name}{_NOISE}" for name, metric in prepared.own.items() if metric.has_noise]
    return [*prepared.own, *noisy]


def own_values(prepared: PreparedTask) -> tuple[Values, list[Verdict]]:
    """Score every item with every filter and every metric of one's own.

    Args:
        prepared: Answered, its filters applied; see ``item_values``.

    Returns:
        The values, and what judges said.

    Raises:
        EvaluationError: An item has no score; names metric, task and item.
    """
    values: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    verdicts: list[Verdict] = []
    filters = single_pipelines(prepared.task, prepared.items[0].requests[0]) if prepared.own else ()
    for name in filters:
        items = [_answered(prepared, item, name) for item in prepared.items]
        for metric, own in prepared.own.items():
            for item, score in zip(items, own.scores(metric, items), strict=True):
                values[metric, name].append((item.row, score.value))
                if score.noise is not None:
                    values[f"{metric}{_NOISE}", name].append((item.row, score.noise))
                label = metric_label(metric, name)
                verdicts += [dataclasses.replace(one, metric=label) for one in score.verdicts]
    return values, verdicts


def trial_faults(prepared: PreparedTask, without: Collection[str]) -> Iterator[Fault]:
    """Let every metric score the first item as if the gold answer had been given.

    Args:
        prepared: A task; nothing of it changes.
        without: Metrics that are known to be wrong, and must not be called.
    """
    item = prepared.items[0]
    with suppress(Exception):  # a task need not say what is right
        answers = _gold(prepared.task, item)
        gold = _item(prepared, item, answers)
        for metric in prepared.own.keys() - without:
            try:
                prepared.own[metric].scores(metric, [gold], is_patient=False)
            except EvaluationError as err:
                text = f"{err} (called with the gold answer, before anything is scored)"
                yield Fault(("metrics", metric), text)


def _answered(prepared: PreparedTask, item: Item, name: str) -> AnsweredItem:
    answers = tuple(request.filtered_resps[name] for request in item.requests)
    return _item(prepared, item, answers)


def _item(prepared: PreparedTask, item: Item, answers: tuple[object, ...]) -> AnsweredItem:
    prompt = str(item.requests[0].args[0])
    target = _target(prepared.task, item)
    return AnsweredItem(prepared.name, item.row, item.doc, prompt, answers, target)


def _target(task: Task, item: Item) -> object:
    with suppress(Exception):  # a task that is a Python class need not say what is right
        return task.doc_to_target(item.doc)
    return None


def _gold(task: Task, item: Item) -> tuple[object, ...]:
    """What a model would have answered that is right, as ``AnsweredItem`` has it."""
    match task.OUTPUT_TYPE:
        case str(kind) if kind == GENERATION:
            return (gold_texts(task, item)[0],)
        case "multiple_choice":
            right = gold_choices(task, item, task.doc_to_choice(item.doc))
            return tuple((-float(i not in right), i in right) for i in range(len(item.requests)))
        case "loglikelihood":
            return ((0.0, True),)
        case _:
            return (0.0,)
