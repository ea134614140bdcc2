"""Which items give an objective its slope, or why it has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import EvaluationError
from evomerge.evaluation.engine import Engine
from evomerge.evaluation.harness import GENERATION, Group, task_names
from evomerge.evaluation.images import has_images
from evomerge.evaluation.item_losses import LossKind, LossSettings
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.own_values import own_names
from evomerge.evaluation.reasoning import tags_of
from evomerge.evaluation.requests import PreparedTask, PromptedSuite
from evomerge.evaluation.right_answers import Answers, RightAnswers
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.evaluation.targets import UNASKED, SlopedItem, Targets, needs_answers
from evomerge.evaluation.tasks import why

__all__ = [
    "NO_GRADIENTS",
    "ObjectiveTasks",
    "SlopedObjective",
    "expected_objective",
    "generating",
    "names_in",
    "sloped_objective",
]

NO_GRADIENTS = "engine vllm keeps nothing to take slopes through; set engine: transformers"
_NO_ITEMS = "it is no score of the items of a task"
_OWN = "metrics of one's own have no loss"


@dataclass(frozen=True)
class SlopedObjective:
    """The items of one objective, or why it has no slope.

    Attributes:
        items: By task, then row; none without slope.
        reason: Why it has no slope, in one line; ``None`` if it has.
        max_length: Longest sequence that its model takes.
    """

    items: tuple[SlopedItem, ...]
    reason: str | None = None
    max_length: int = 0


@dataclass(frozen=True)
class ObjectiveTasks:
    """The tasks that an objective is about.

    Attributes:
        tasks: One task, those of a group, or none where it is no score of items.
        group: Says how its tasks count.
        metric: Of each of the tasks.
        lm: Tokenises; needs no parameters.
        engine: Answers them; ``None`` before there is one.
    """

    tasks: tuple[PreparedTask, ...]
    group: Group | None
    metric: str
    lm: LanguageModel
    engine: Engine | None = None

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which way the metric gets better, and with it the loss smaller."""
        name = self.metric.partition(",")[0]
        more = all(one.task.higher_is_better().get(name, True) for one in self.tasks)
        return SMOOTH_METRICS.get(name, "maximize" if more else "minimize")


def names_in(suite: PromptedSuite, task: str) -> frozenset[str]:
    """Name the tasks of a suite that a task or group stands for, if they are there."""
    group = suite.groups.get(task)
    return frozenset({task}) if group is None else task_names(group)


def sloped_objective(
    wanted: ObjectiveTasks, settings: LossSettings, parents: Mapping[str, Sequence[Answers]]
) -> SlopedObjective:
    """Find the items of an objective.

    Args:
        wanted: What it is about.
        settings: What losses look at.
        parents: By task name, what each parent answered, where it was asked.
    """
    if not wanted.tasks:
        return SlopedObjective((), _NO_ITEMS)
    if wanted.engine is not None and wanted.engine.sloped_model is None:
        return SlopedObjective((), NO_GRADIENTS)
    if any(_is_own(task, wanted.metric) for task in wanted.tasks):
        return SlopedObjective((), _OWN)
    found: list[list[SlopedItem]] = []
    for task in wanted.tasks:
        try:
            found.append(_items(task, wanted, settings, parents.get(task.name, ())))
        except Exception as err:  # templates and task code raise anything
            return SlopedObjective((), f"{task.name}: {why(err, {})}")
    if wanted.group is not None and not _by_size(wanted.group, wanted.metric):
        found = [_scaled(items, _mean_size(found) / len(items)) for items in found]
    items = tuple(item for items in found for item in items)
    return SlopedObjective(items, None, wanted.lm.lm.max_length)


def expected_objective(
    wanted: ObjectiveTasks, direction: str, kind: LossKind = "gold"
) -> SlopedObjective:
    """Find the items of an objective before parents are asked for right answers.

    One whose tasks generate may have a slope although no item is found yet. One that is to get
    worse has none: losses go down where metrics get better.

    Args:
        wanted: What it is about.
        direction: Which way the study wants it, ``maximize`` or ``minimize``.
        kind: What losses look at; entropies need no parent.
    """
    if any(_is_own(task, wanted.metric) for task in wanted.tasks):
        return SlopedObjective((), _OWN)
    if wanted.tasks and direction != wanted.direction:
        return SlopedObjective((), f"to {direction} it is to make it worse, which no loss does")
    found = sloped_objective(wanted, LossSettings(kind), {})
    is_open = found.reason is not None and found.reason.endswith(UNASKED)
    return dataclasses.replace(found, reason=None) if is_open else found


def generating(wanted: Sequence[ObjectiveTasks]) -> Iterator[RightAnswers]:
    """Yield what finds right answers, for each task that generates and each of its metrics."""
    for one in wanted:
        for task in one.tasks:
            if has_images(task.task):
                continue
            is_asked = needs_answers(task, one.metric) and not _is_own(task, one.metric)
            if is_asked and not task.is_sampled:
                with suppress(Exception):  # of templates and task code; said where they are used
                    yield RightAnswers(task, one.metric, one.lm, one.engine)


def _is_own(task: PreparedTask, metric: str) -> bool:
    return metric.partition(",")[0] in own_names(task)


def _items(
    task: PreparedTask,
    wanted: ObjectiveTasks,
    settings: LossSettings,
    parents: Sequence[Answers],
) -> list[SlopedItem]:
    if has_images(task.task):
        raise EvaluationError("its prompts have images, which no loss reads")
    if task.is_sampled and settings.kind == "gold":
        raise EvaluationError("its answers are drawn at random; set do_sample: false")
    if task.task.OUTPUT_TYPE == GENERATION and settings.kind == "gold":
        _require_answers_next(task, wanted.lm)
    return Targets(task, wanted.metric, wanted.lm, settings, parents).items()


def _require_answers_next(task: PreparedTask, lm: LanguageModel) -> None:
    """Refuse prompts that begin reasoning: right answers would be learnt in its place."""
    tags = tags_of(lm.lm.tokenizer, "auto")
    if tags and any(tags.begin_in(request.args[0]) for request in task.task.instances):
        text = f"its prompts end with {tags.start}, and reasoning comes before right answers"
        raise EvaluationError(f"{text}; set chat_template_args: {{enable_thinking: false}}")


def _by_size(group: Group, metric: str) -> bool:
    """Whether a group's metric is a mean over items, or else over tasks."""
    name = metric.partition(",")[0]
    rules = group.aggregate_metric_list or ()
    return all(rule.weight_by_size for rule in rules if rule.metric == name)


def _mean_size(found: Sequence[Sequence[SlopedItem]]) -> float:
    return sum(map(len, found)) / len(found)


def _scaled(items: Sequence[SlopedItem], share: float) -> list[SlopedItem]:
    return [dataclasses.replace(item, share=share) for item in items]
