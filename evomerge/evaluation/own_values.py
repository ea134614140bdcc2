"""The values of metrics of one's own: a task's answers in, what each metric says of them out."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from statistics import fmean

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation.aggregate import Values, metric_label
from evomerge.evaluation.harness import GENERATION, Task, sample_pipelines
from evomerge.evaluation.own_functions import in_time
from evomerge.evaluation.own_metrics import NOISE, OwnMetric
from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.scored_items import AnsweredItem, OwnScore
from evomerge.evaluation.scores import Verdict
from evomerge.evaluation.smooth import gold_choices, gold_texts

_log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0

__all__ = ["own_keys", "own_names", "own_values", "trial_faults"]


def own_names(prepared: PreparedTask) -> list[str]:
    """Name the metrics of one's own that a task has, and those of their noise."""
    noisy = [f"{name}{NOISE}" for name, metric in prepared.own.items() if metric.has_noise]
    return [*prepared.own, *noisy]


def own_values(prepared: PreparedTask) -> tuple[Values, list[Verdict]]:
    """Score every item with every filter and every metric of one's own.

    Args:
        prepared: Answered, its filters applied; see ``item_values``.

    Returns:
        The values, and what judges said: once where several filters or answers lead to the same
        question.

    Raises:
        EvaluationError: An item has no score; names metric, task and item.
    """
    values: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    verdicts: dict[tuple[str, int, str], Verdict] = {}  # by metric, item and question
    several = sample_pipelines(prepared.task)
    for name, shown in _filters(prepared).items():
        items = [_answered(prepared, item, name) for item in prepared.items]
        for metric, own in prepared.own.items():
            if name in several:
                scores = _over_samples(own, metric, items)
            else:
                scores = own.scores(metric, items)
            for item, score in zip(items, scores, strict=True):
                values[metric, shown].append((item.row, score.value))
                if score.noise is not None:
                    values[f"{metric}{NOISE}", shown].append((item.row, score.noise))
                label = metric_label(metric, shown)
                for one in score.verdicts:
                    noted = dataclasses.replace(one, metric=label)
                    verdicts.setdefault((metric, item.row, one.prompt), noted)
    return values, [*verdicts.values()]


def own_keys(prepared: PreparedTask) -> list[tuple[str, str]]:
    """List the metrics and filters of ``own_values``, for a task with any answers, filtered."""
    shown = _filters(prepared).values()
    return [(metric, name) for name in shown for metric in own_names(prepared)]


def _filters(prepared: PreparedTask) -> dict[str, str]:
    """Name the filters, and what metrics after each are called by; every answer counts alike."""
    found = prepared.items[0].requests[0].filtered_resps if prepared.own else {}
    several = sample_pipelines(prepared.task)
    return {
        name: f"{several[name]}mean@{len(answers)}" if name in several else name
        for name, answers in found.items()
    }


def _over_samples(own: OwnMetric, metric: str, items: Sequence[AnsweredItem]) -> list[OwnScore]:
    """Score each of several answers to an item by itself: their mean."""
    alone = [
        [dataclasses.replace(item, answers=answers) for answers in zip(*item.answers, strict=True)]
        for item in items
    ]
    scored = iter(own.scores(metric, [one for each in alone for one in each]))
    return [_mean([next(scored) for _ in each]) for each in alone]


def _mean(scores: Sequence[OwnScore]) -> OwnScore:
    noises = [score.noise for score in scores if score.noise is not None]
    verdicts = tuple(verdict for score in scores for verdict in score.verdicts)
    value = fmean(score.value for score in scores)
    return OwnScore(value, fmean(noises) if noises else None, verdicts)


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
        for metric in sorted(prepared.own.keys() - without):
            yield from _trial(prepared.own[metric], metric, gold)


def _trial(own: OwnMetric, metric: str, gold: AnsweredItem) -> Iterator[Fault]:
    seconds = own.timeout or _TIMEOUT_S
    limit = None if own.reads_texts else seconds  # a judge and code have limits of their own
    where = "called with the gold answer, before anything is scored"
    try:
        (score,) = in_time(lambda: own.scores(metric, [gold], is_patient=False), limit)
    except EvaluationError as err:
        yield Fault(("metrics", metric), f"{err} ({where})")
    except TimeoutError:
        late = gold.fault(metric, f"expected a number within {seconds:g} s, got none yet")
        yield Fault(("metrics", metric), f"{late} ({where})", "set timeout if it takes longer")
    else:
        if own.runs is not None and score.value == 0:
            _log.warning(
                "%s: what the task holds for right does not pass; if that is code which should, "
                "the template of runs, its seconds or its memory are wrong",
                f"metric {metric!r}, task {gold.task!r}, item {gold.row}",
            )


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
