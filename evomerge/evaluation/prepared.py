"""Scoring a live model again and again on suites that were built once."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.aggregate import (
    Cost,
    aggregate_group,
    aggregate_task,
    item_scores,
    item_values,
)
from evomerge.evaluation.engine import Answer, Engine, PreparedRequests
from evomerge.evaluation.gates import Gates
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.probe import Probe
from evomerge.evaluation.requests import PreparedTask, prepare_split
from evomerge.evaluation.score_cache import digest_of
from evomerge.evaluation.scores import ItemScore, MetricValue, Scores
from evomerge.evaluation.smooth import Gold, gold_answers, smooth_metrics
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
        self._runs: list[_PreparedSuite] = []
        faults: list[str] = []
        for suite in suites:
            with clean_harness(), collected(faults):
                engine = TransformersEngine(model, tokenizer, suite.batch_size)
                self._runs.append(_prepare(load_suite(suite), split, engine))
        raise_faults(faults + name_clashes([run.loaded for run in self._runs]))

    @property
    def tasks(self) -> tuple[PreparedTask, ...]:
        """Every task with its items and requests, in suite order."""
        return tuple(prepared for run in self._runs for prepared in run.tasks)

    @functools.cached_property
    def digest(self) -> str | None:
        """Name what is scored and how, by content; ``None`` where scores are drawn at random."""
        if any(_is_sampled(one) for one in self.tasks):
            return None
        libraries = [version(name) for name in ("lm_eval", "transformers", "torch")]
        return digest_of(libraries, [run.content() for run in self._runs])

    def probes(self, gates: Gates) -> list[Probe]:
        """Prepare a short look at the model with the prompts of each suite."""
        with clean_harness():
            return [Probe(run.tasks, run.engine, gates) for run in self._runs]

    def score(self) -> Scores:
        """Score the model as it is now; nothing of an earlier call remains in the result."""
        started = time.perf_counter()
        metrics: dict[str, dict[str, MetricValue]] = {}
        items: list[ItemScore] = []
        for run in self._runs:
            with clean_harness():  # per suite, so that none depends on what another drew
                answers = run.answer()
                for prepared in run.tasks:
                    values, golds = item_values(prepared), run.golds[prepared.name]
                    metrics[prepared.name] = aggregate_task(prepared, values)
                    if prepared.name in run.loaded.suite.smooth:
                        metrics[prepared.name] |= smooth_metrics(prepared.task, golds)
                    smooth = {gold.row: gold.smooth for gold in golds}
                    items += item_scores(prepared, values, _costs(prepared, answers), smooth)
                for name, group in run.loaded.groups.items():
                    if table := aggregate_group(group, metrics):
                        metrics[name] = table
        return Scores(metrics, tuple(items), time.perf_counter() - started)


@dataclass(frozen=True)
class _PreparedSuite:
    """A suite whose requests are with an engine; the gold answers' own ones apart.

    Apart, because lm-eval's batches, and with them its floats, depend on what is scored together.
    """

    loaded: LoadedSuite
    engine: Engine
    tasks: list[PreparedTask]
    golds: dict[str, list[Gold]]
    requests: list[tuple[list[Instance], PreparedRequests]]

    def content(self) -> list[object]:
        """Everything the scores depend on beside the model, in a form that can be digested."""
        suite = self.loaded.suite
        groups = {name: group.to_dict() for name, group in self.loaded.groups.items()}
        tasks = [
            [one.name, one.task.dump_config(), [[i.row, i.doc] for i in one.items]]
            for one in self.tasks
        ]
        asked = [[r.request_type, r.args] for part, _ in self.requests for r in part]
        return [sorted(suite.smooth), suite.batch_size, groups, tasks, asked]

    def answer(self) -> dict[int, list[Answer]]:
        """Answer every request anew; returns the answers by ``id`` of the request."""
        answers = {}
        for instances, requests in self.requests:
            for instance, found in zip(instances, requests.run(), strict=True):
                instance.resps = [answer.response for answer in found]
                instance.filtered_resps = {}
                answers[id(instance)] = found
        return answers


def _prepare(loaded: LoadedSuite, split: str, engine: Engine) -> _PreparedSuite:
    tasks = prepare_split(loaded, split, engine.language_model)
    golds = {
        one.name: gold_answers(one, extra_requests=one.name in loaded.suite.smooth) for one in tasks
    }
    own = [request for one in tasks for request in one.task.instances]
    known = set(map(id, own))
    extra = [r for found in golds.values() for g in found for r in g.requests if id(r) not in known]
    requests = [(part, engine.prepare(part)) for part in (own, extra) if part]
    return _PreparedSuite(loaded, engine, tasks, golds, requests)


def _is_sampled(prepared: PreparedTask) -> bool:
    settings = getattr(prepared.task.config, "generation_kwargs", None) or {}
    return bool(settings.get("do_sample")) or float(settings.get("temperature") or 0) > 0


def _costs(prepared: PreparedTask, answers: dict[int, list[Answer]]) -> dict[int, Cost]:
    """Tokens and seconds of every item, by row."""
    return {
        item.row: _sum(answer for request in item.requests for answer in answers[id(request)])
        for item in prepared.items
    }


def _sum(answers: Iterator[Answer]) -> Cost:
    costs = [(answer.tokens, answer.seconds) for answer in answers]
    return sum(tokens for tokens, _ in costs), sum(seconds for _, seconds in costs)
