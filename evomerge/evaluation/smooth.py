"""Smooth metrics of any task: how likely the gold answer is, not just whether it wins.

They resolve differences between candidates that accuracy rounds away, and move before it does.

    gold_bpb          bits per byte of the gold answers; less is better
    gold_probability  of the gold choice, among choices by log-likelihood per byte; more is better
    brier             squared distance of those probabilities from certainty; less is better

Source: Heineman et al. 2025, "Signal and Noise", arXiv:2508.13144.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.evaluation.harness import Instance, Task
from evomerge.evaluation.images import has_images
from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.scores import MetricValue

__all__ = [
    "Gold",
    "gold_answers",
    "gold_choices",
    "gold_texts",
    "scored_answer",
    "smooth_metrics",
    "smooth_names",
]

_OF_CHOICES = ("gold_bpb", "gold_probability", "brier")


@dataclass(frozen=True)
class Gold:
    """Where the likelihood of one item's gold answer is found, once its requests are answered.

    Attributes:
        row: The item's row in the dataset split.
        requests: One per choice, or the one that scores the gold answer.
        index: Which of them is gold.
    """

    row: int
    requests: tuple[Instance, ...]
    index: int = 0

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the gold answer as it was scored, a space before it included."""
        return _n_bytes(self.requests[self.index])

    @property
    def log_likelihood(self) -> float:
        """Log-likelihood of the gold answer, in nats."""
        return _log_likelihood(self.requests[self.index])

    @property
    def probabilities(self) -> np.ndarray:
        """(choices,) softmax of the log-likelihoods per byte."""
        rates = np.array([_log_likelihood(r) / _n_bytes(r) for r in self.requests])
        shares = np.exp(rates - rates.max())
        return np.asarray(shares / shares.sum())

    @property
    def smooth(self) -> float:
        """Probability of the gold choice; without choices, of one byte of the gold answer."""
        if len(self.requests) > 1:
            return float(self.probabilities[self.index])
        return math.exp(self.log_likelihood / self.n_bytes)

    @property
    def brier(self) -> float:
        """Squared distance of the probabilities from certainty."""
        certain = np.eye(len(self.requests))[self.index]
        return float(np.sum((self.probabilities - certain) ** 2))


def smooth_names(task: Task) -> tuple[str, ...]:
    """Name the smooth metrics that a task has."""
    if has_images(task):
        return ()  # no given text is scored after images
    if not hasattr(task, "doc_to_choice"):
        return ()  # a task that is a Python class says nowhere what its gold answers are
    return _OF_CHOICES if task.OUTPUT_TYPE == "multiple_choice" else ("gold_bpb",)


def gold_answers(prepared: PreparedTask, *, extra_requests: bool) -> list[Gold]:
    """Find the gold answer of each item; items without one are left out.

    Args:
        prepared: A task.
        extra_requests: Whether to make the requests that score gold answers where the task only
            generates; without them such a task has none.
    """
    task = prepared.task
    is_generated = task.OUTPUT_TYPE == "generate_until"
    if not smooth_names(task) or (is_generated and not extra_requests):
        return []
    found = [_gold(task, item) for item in prepared.items]
    return [gold for gold in found if gold is not None and gold.n_bytes > 0]


def smooth_metrics(task: Task, golds: Sequence[Gold]) -> dict[str, MetricValue]:
    """Aggregate the smooth metrics of a task over its items; none without gold answers."""
    if not golds:
        return {}
    metrics = {"gold_bpb": _bits_per_byte(golds)}
    if "brier" in smooth_names(task):
        metrics["gold_probability"] = _mean([gold.smooth for gold in golds])
        metrics["brier"] = _mean([gold.brier for gold in golds])
    return metrics


def gold_choices(task: Task, item: Item, choices: Sequence[str]) -> tuple[int, ...]:
    """Find the positions of the gold choices, in the item's order; invalid ones are left out."""
    gold = task.doc_to_text(item.doc) if task.multiple_input else task.doc_to_target(item.doc)
    several = gold if isinstance(gold, list) else [gold]
    found = [_position(one, choices) for one in several]
    return tuple(position for position in found if position is not None)


def gold_texts(task: Task, item: Item) -> list[str]:
    """List the gold answers of an item of a task that generates."""
    gold = task.doc_to_target(item.doc)
    if task.config.doc_to_choice is not None:
        gold = task.doc_to_choice(item.doc)[gold]
    return [str(one) for one in (gold if isinstance(gold, list) and gold else [gold])]


def scored_answer(task: Task, item: Item, text: str) -> Instance:
    """Make a request that scores a text after the prompt that asks for it."""
    prompt = item.requests[0].args[0]
    delimiter = "" if prompt[-1:].isspace() else task.config.target_delimiter
    return Instance(
        request_type="loglikelihood",
        doc=dict(item.doc),
        arguments=(prompt, f"{delimiter}{text}"),
        idx=0,
        metadata=(task.config.task, item.row, 1),
    )


def _gold(task: Task, item: Item) -> Gold | None:
    match task.OUTPUT_TYPE:
        case "multiple_choice":
            choices = task.doc_to_choice(item.doc)
            gold = gold_choices(task, item, choices)[:1]
            return Gold(item.row, item.requests[: len(choices)], *gold) if gold else None
        case "generate_until":
            return Gold(item.row, (scored_answer(task, item, gold_texts(task, item)[0]),))
        case _:
            return Gold(item.row, item.requests[:1])


def _position(gold: str | int, choices: Sequence[str]) -> int | None:
    """Where a gold choice is; ``None`` where the item names no valid one."""
    if isinstance(gold, str):
        return choices.index(gold) if gold in choices else None
    return gold if 0 <= gold < len(choices) else None


def _log_likelihood(request: Instance) -> float:
    response = request.resps[0]
    return float(response[0] if isinstance(response, tuple) else response)


def _n_bytes(request: Instance) -> int:
    return len(request.args[-1].encode())


def _bits_per_byte(golds: Sequence[Gold]) -> MetricValue:
    """Total bits over total bytes, with the standard error of a ratio (delta method)."""
    bits = np.array([-gold.log_likelihood / math.log(2) for gold in golds])
    sizes = np.array([float(gold.n_bytes) for gold in golds])
    ratio, n = bits.sum() / sizes.sum(), len(golds)
    stderr = math.nan
    if n > 1:
        residuals = bits - ratio * sizes
        stderr = math.sqrt(n / (n - 1) * float(residuals @ residuals)) / sizes.sum()
    return MetricValue(float(ratio), float(stderr), n)


def _mean(values: Sequence[float]) -> MetricValue:
    n = len(values)
    stderr = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return MetricValue(float(np.mean(values)), stderr, n)
