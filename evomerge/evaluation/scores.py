"""What scoring a model yields: aggregated metrics, and the score of every item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["SMOOTH_METRICS", "ItemScore", "MetricValue", "Sample", "Scores", "Verdict"]

# Metrics any task may have beside its own, and which way is better; see smooth.py.
SMOOTH_METRICS: Mapping[str, Literal["maximize", "minimize"]] = {
    "gold_bpb": "minimize",
    "gold_probability": "maximize",
    "brier": "minimize",
}


@dataclass(frozen=True)
class MetricValue:
    """One metric of one task or group.

    Attributes:
        value: The metric, exactly as ``lm_eval.simple_evaluate`` computes it.
        stderr: Standard error; NaN for metrics without a closed form (lm-eval would bootstrap
            perplexity, F1, BLEU and the like, which costs more than scoring the model).
        n: Items behind the value.
    """

    value: float
    stderr: float
    n: int


@dataclass(frozen=True)
class ItemScore:
    """One metric of one item.

    Attributes:
        task: lm-eval task name.
        item: Row of the item in the dataset split it came from; the same whatever the limit.
        metric: ``METRIC``, or ``METRIC,FILTER`` when the filter is not ``none``.
        score: The item's own value; its mean is the metric's value for metrics that are means.
        smooth: How likely the gold answer was, in [0, 1]: the gold choice among the choices, or one
            byte of the gold answer; ``None`` where that was not scored.
        tokens: Tokens generated or scored for the item.
        seconds: The item's share of the time of its forward passes; no part of equality.
    """

    task: str
    item: int
    metric: str
    score: float
    smooth: float | None = None
    tokens: int = 0
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Sample:
    """One item of a task, for people; long texts are cut.

    Attributes:
        prompt: Its end.
        answer: What the model said to it after its reasoning, before any filter.
        gold: What is right.
    """

    prompt: str
    answer: str
    gold: str


@dataclass(frozen=True)
class Verdict:
    """What a judge was asked about one answer, and what it said.

    Attributes:
        task: lm-eval task name.
        item: Row of the item in its dataset split.
        metric: As in ``ItemScore``.
        prompt: What it was asked.
        answer: What it was asked about.
        replies: What it said, one per sample.
        verdicts: The numbers read off them.
    """

    task: str
    item: int
    metric: str
    prompt: str
    answer: str
    replies: tuple[str, ...]
    verdicts: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """All that one pass over the suites found out about a model.

    Attributes:
        metrics: Task or group name -> metric name -> value; metric names as in ``ItemScore``.
        items: Per-item values of the metrics that have a number per item, by task, then metric,
            then item.
        seconds: Wall-clock time of the pass.
        samples: An item of each task that has one to show, by task.
        verdicts: What judges said, where a metric asks one.
    """

    metrics: Mapping[str, Mapping[str, MetricValue]]
    items: tuple[ItemScore, ...]
    seconds: float
    samples: Mapping[str, Sample] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
