"""Scoring a live model again and again on suites that were built once."""

from __future__ import annotations

import time
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.aggregate import (
    aggregate_group,
    aggregate_task,
    item_scores,
    item_values,
)
from evomerge.evaluation.engine import PreparedRequests
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.requests import PreparedTask, prepare_split
from evomerge.evaluation.scores import ItemScore, MetricValue, Scores
from evomerge.evaluation.suite import Suite, collected, raise_faults
from evomerge.evaluation.tasks import LoadedSuite, load_suite, name_clashes
from evomerge.evaluation.transformers_engine import TransformersEngine

__all__ = ["PreparedSuites"]


class PreparedSuites:
    """Suites bound to one split and one live model, ready to be scored many times.

    Tasks, prompts and tokens are built once; ``score`` runs the model and aggregates. The numbers
    equal those of ``lm_eval.simple_evaluate`` for the same tasks and items.

    Args:
        suites: What to score; task names must not occur twice.
        split: One of ``SPLITS``.
        model: Scored as it is at each call: change its parameters in place.
        tokenizer: Copied; padding side and tokens of the original are left alone.

    Raises:
        EvaluationError: Every fault of every suite for this split, one per line.
    """

    def __init__(
        self,
        suites: Sequence[Suite],
        split: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._runs: list[tuple[LoadedSuite, PreparedRequests, list[PreparedTask]]] = []
        faults: list[str] = []
        for suite in suites:
            with clean_harness(), collected(faults):
                loaded = load_suite(suite)
                engine = TransformersEngine(model, tokenizer, suite.batch_size)
                tasks = prepare_split(loaded, split, engine.language_model)
                requests = engine.prepare([r for one in tasks for r in one.task.instances])
                self._runs.append((loaded, requests, tasks))
        raise_faults(faults + name_clashes([loaded for loaded, _, _ in self._runs]))

    @property
    def tasks(self) -> tuple[PreparedTask, ...]:
        """Every task with its items and requests, in suite order."""
        return tuple(prepared for _, _, tasks in self._runs for prepared in tasks)

    def score(self) -> Scores:
        """Score the model as it is now; nothing of an earlier call remains in the result."""
        started = time.perf_counter()
        metrics: dict[str, dict[str, MetricValue]] = {}
        items: list[ItemScore] = []
        for loaded, requests, tasks in self._runs:
            with clean_harness():  # per suite, so that none depends on what another drew
                answers = iter(requests.run())
                for prepared in tasks:
                    for instance in prepared.task.instances:
                        instance.resps = [answer.response for answer in next(answers)]
                        instance.filtered_resps = {}
                    values = item_values(prepared)
                    metrics[prepared.name] = aggregate_task(prepared, values)
                    items += item_scores(prepared, values)
                for name, group in loaded.groups.items():
                    if table := aggregate_group(group, metrics):
                        metrics[name] = table
        return Scores(metrics, tuple(items), time.perf_counter() - started)
