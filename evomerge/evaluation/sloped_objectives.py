"""Which items give an objective its slope, or why it has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.errors import EvaluationError
from evomerge.evaluation.harness import Group, LanguageModel, task_names
from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.requests import PreparedTask, PromptedSuite
from evomerge.evaluation.targets import SlopedItem, Targets
from evomerge.evaluation.tasks import why

__all__ = ["NO_GRADIENTS", "NO_ITEMS", "SlopedObjective", "names_in", "sloped_objective"]

NO_GRADIENTS = "engine vllm keeps nothing to take slopes through; set engine: transformers"
NO_ITEMS = "it is no score of the items of a task"


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


def names_in(suite: PromptedSuite, task: str) -> frozenset[str]:
    """Name the tasks of a suite that a task or group stands for, if they are there."""
    group = suite.groups.get(task)
    return frozenset({task}) if group is None else task_names(group)


def sloped_objective(
    tasks: Sequence[PreparedTask],
    group: Group | None,
    metric: str,
    lm: LanguageModel,
    settings: LossSettings,
) -> SlopedObjective:
    """Find the items of an objective.

    Args:
        tasks: One task, or those of a group.
        group: Says how its tasks count.
        metric: Of each of the tasks.
        lm: Tokenises; needs no parameters.
        settings: What losses look at.
    """
    found: list[list[SlopedItem]] = []
    for one in tasks:
        try:
            found.append(_items(one, metric, lm, settings))
        except Exception as err:  # templates and task code raise anything
            return SlopedObjective((), f"{one.name}: {why(err, {})}")
    if group is not None and not _by_size(group, metric):
        found = [_scaled(items, _mean_size(found) / len(items)) for items in found]
    items = tuple(item for items in found for item in items)
    return SlopedObjective(items, None, lm.lm.max_length)


def _items(
    task: PreparedTask, metric: str, lm: LanguageModel, settings: LossSettings
) -> list[SlopedItem]:
    if task.is_sampled:
        raise EvaluationError("its answers are drawn at random; set do_sample: false")
    return Targets(task, metric, lm, settings).items()


def _by_size(group: Group, metric: str) -> bool:
    """Whether a group's metric is a mean over items, or else over tasks."""
    name = metric.partition(",")[0]
    rules = group.aggregate_metric_list or ()
    return all(rule.weight_by_size for rule in rules if rule.metric == name)


def _mean_size(found: Sequence[Sequence[SlopedItem]]) -> float:
    return sum(map(len, found)) / len(found)


def _scaled(items: Sequence[SlopedItem], share: float) -> list[SlopedItem]:
    return [dataclasses.replace(item, share=share) for item in items]
