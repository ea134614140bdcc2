"""Scoring a live model again and again on suites that were built once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter, itemgetter
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from evomerge.errors import EvaluationError, Fault, collected
from evomerge.evaluation.aggregate import (
    ItemCost,
    Values,
    aggregate_group,
    aggregate_task,
    item_scores,
    item_values,
)
from evomerge.evaluation.catalogue import prompt_suites
from evomerge.evaluation.content import (
    generation_content,
    image_content,
    item_content,
    own_content,
    settings_content,
    token_content,
    tokenizer_content,
)
from evomerge.evaluation.engine import Answer, Engine, PreparedRequests
from evomerge.evaluation.gates import Gates
from evomerge.evaluation.harness import GENERATION, Instance
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.losses import Losses
from evomerge.evaluation.own_values import own_values
from evomerge.evaluation.probe import Probe
from evomerge.evaluation.reasoning import Tags
from evomerge.evaluation.requests import PreparedTask, PromptedSuite, texts_alone
from evomerge.evaluation.right_answers import parents_answers
from evomerge.evaluation.rungs import cut_task
from evomerge.evaluation.samples import item_sample, sample_of
from evomerge.evaluation.scores import ItemScore, MetricValue, Sample, Scores, Verdict
from evomerge.evaluation.sloped_objectives import (
    ObjectiveTasks,
    generating,
    names_in,
    sloped_objective,
)
from evomerge.evaluation.smooth import Gold, gold_answers, smooth_metrics
from evomerge.evaluation.suite import BatchSize, Suite
from evomerge.evaluation.transformers_engine import TransformersEngine
from evomerge.fingerprint import digest_of

__all__ = ["MakeEngine", "PreparedSuites"]

_LIBRARIES = ("evomerge", "lm_eval", "transformers", "tokenizers", "torch")

_DEFAULT_LOSSES = LossSettings()

# Given the live model, its tokenizer, the sequences per forward pass, and the tags of reasoning
# that is left out of answers.
MakeEngine = Callable[[PreTrainedModel, PreTrainedTokenizerBase, BatchSize, Tags | None], Engine]


class PreparedSuites:
    """Suites bound to one split and one live model, ready to be scored many times.

    Tasks, prompts and tokens are built once; ``score`` runs the model and aggregates. The numbers
    equal those of ``lm_eval.simple_evaluate`` for the same tasks and items.

    Args:
        prompted: What to score; task names must not occur twice. The requests are the engine's
            from here on.
        model: Scored as it is at each call: change its parameters in place.
        tokenizer: Copied; padding side and tokens of the original are left alone.
        rungs: Ascending shares of every task's items after which ``looks`` pauses; they also cut
            the batches.
        make_engine: Makes what runs the model.

    Raises:
        EvaluationError: A request that an engine cannot answer.
    """

    def __init__(
        self,
        prompted: Sequence[PromptedSuite],
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rungs: Sequence[float] = (),
        make_engine: MakeEngine = TransformersEngine,
    ) -> None:
        self._runs: list[_PreparedSuite] = []
        self._answers: dict[int, list[Answer]] = {}
        self._digests: dict[tuple[object, ...], str] = {}  # by what decides over the last digits
        faults: list[Fault] = []
        for one in prompted:
            with clean_harness(), collected(faults, one.suite.name):
                engine = make_engine(model, tokenizer, one.suite.batch_size, one.tags)
                self._runs.append(_prepare(one, engine, rungs))
        if faults:
            raise EvaluationError(*faults)

    @classmethod
    def of(
        cls,
        suites: Sequence[Suite],
        split: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rungs: Sequence[float] = (),
        make_engine: MakeEngine = TransformersEngine,
        reading: Mapping[str, object] | None = None,
    ) -> Self:
        """Load suites, build their prompts for one split, and prepare them.

        Args:
            suites: What to score; task names must not occur twice.
            split: One of ``SPLITS``.
            model: See the class; likewise the rest.
            tokenizer: Its chat template shapes the prompts.
            rungs: See the class.
            make_engine: See the class.
            reading: See ``LanguageModel``; the engine is told, too.

        Raises:
            EvaluationError: Every fault of every suite for this split.
        """
        prompted = prompt_suites(suites, split, model, tokenizer, reading)
        return cls(prompted, model, tokenizer, rungs, make_engine)

    @property
    def tasks(self) -> tuple[PreparedTask, ...]:
        """Every task with its items and requests, in suite order."""
        return tuple(prepared for run in self._runs for prepared in run.tasks)

    @property
    def digest(self) -> str | None:
        """Name what is scored and how, by content; ``None`` where answers come out by chance.

        It changes with the batches, where memory runs out.
        """
        if not all(run.is_repeatable for run in self._runs):
            return None
        how = tuple(tuple(run.engine.arithmetic) for run in self._runs)
        if how not in self._digests:
            libraries = [version(name) for name in _LIBRARIES]
            self._digests[how] = digest_of(libraries, [run.content() for run in self._runs])
        return self._digests[how]

    def probes(self, gates: Gates) -> list[Probe]:
        """Prepare a short look at the model with the prompts of each suite that are text alone."""
        with clean_harness():
            texts = [([*texts_alone(run.tasks)], run.engine) for run in self._runs]
            return [Probe(tasks, engine, gates) for tasks, engine in texts if tasks]

    def losses(
        self,
        objectives: Sequence[tuple[str, str]],
        settings: LossSettings = _DEFAULT_LOSSES,
        parents: Callable[[], Iterator[None]] | None = None,
    ) -> Losses:
        """Find smooth losses that stand for metrics, with slopes into the live model.

        Args:
            objectives: Tasks or groups, each with a metric.
            settings: What the losses look at, and how they are run.
            parents: Puts one parent after another into the live model, each time that it is called.
                They are asked for answers where tasks generate: a gold text may not be what a model
                would write.

        Returns:
            One loss for each objective, or why it has none.
        """
        model = self._runs[0].engine.sloped_model
        with clean_harness():
            wanted = [self._part(task, metric) for task, metric in objectives]
            asked = None if model is None or settings.kind == "entropy" else parents
            answers = {} if asked is None else parents_answers([*generating(wanted)], asked)
            found = [sloped_objective(one, settings, answers) for one in wanted]
        return Losses(model, found, settings)

    def _part(self, name: str, metric: str) -> ObjectiveTasks:
        """Find the tasks of an objective."""
        for run in self._runs:
            names = names_in(run.prompted, name)
            tasks = tuple(one for one in run.tasks if one.name in names)
            if tasks:
                group, engine = run.prompted.groups.get(name), run.engine
                return ObjectiveTasks(tasks, group, metric, engine.language_model, engine)
        return ObjectiveTasks((), None, metric, self._runs[0].engine.language_model)

    def score(self) -> Scores:
        """Score the model as it is now; nothing of an earlier call remains in the result."""
        *_, scores = self.looks()
        return scores

    def looks(self) -> Iterator[Scores]:
        """Score the model as it is now, rung by rung.

        Yields:
            After each rung the items so far, without metrics; after the last one what ``score``
            returns.
        """
        started = time.perf_counter()
        answered = [_Answered(run) for run in self._runs]
        n_rungs = len(self._runs[0].rungs)
        for rung in range(n_rungs):
            for one in answered:
                with clean_harness():  # per suite, so that none depends on what another drew
                    self._answers |= one.answer(one.run.rungs[rung])
            if rung < n_rungs - 1:
                yield _scores({}, answered, started)
        metrics: dict[str, dict[str, MetricValue]] = {}
        for one in answered:
            one.aggregate(metrics)
        yield _scores(metrics, answered, started)

    def generated(self) -> list[list[Answer]]:
        """Give the last answers to each item that asks for generated text, in order."""
        tasks = (one for one in self.tasks if one.task.OUTPUT_TYPE == GENERATION)
        return [
            [answer for request in item.requests for answer in self._answers[id(request)]]
            for task in tasks
            for item in task.items
        ]

    def samples(self) -> dict[str, Sample]:
        """Show an item of each task as the model answered it last; see ``sample_of``."""
        with clean_harness():
            found = {one.name: sample_of(one) for one in self.tasks}
        return {name: sample for name, sample in found.items() if sample is not None}

    def item_samples(self) -> Iterator[tuple[str, int, Sample]]:
        """Show the items as the model answered them last, whole, by task and row.

        Those of tasks that have nothing to show are left out; see ``item_sample``.
        """
        with clean_harness():
            shown = [
                (one, item, item_sample(one, item)) for one in self.tasks for item in one.items
            ]
        for one, item, sample in shown:
            if sample is not None:
                yield one.name, item.row, sample

    def looks_at(self, scores: Scores) -> Iterator[Scores]:
        """Yield what ``looks`` yielded when it found these scores."""
        n_rungs = len(self._runs[0].rungs)
        seen: set[tuple[str, int]] = set()
        for rung in range(n_rungs - 1):
            parts = [part for run in self._runs for part in run.rungs[rung].tasks]
            seen |= {(part.name, row) for part in parts for row in part.order}
            items = tuple(item for item in scores.items if (item.task, item.item) in seen)
            verdicts = tuple(one for one in scores.verdicts if (one.task, one.item) in seen)
            yield Scores({}, items, scores.seconds, verdicts=verdicts)
        yield scores


@dataclass(frozen=True)
class _Rung:
    """What one rung adds: some items of each task, their requests with an engine.

    The requests that only score gold answers are apart, because lm-eval's batches, and with them
    its floats, depend on what is scored together.
    """

    tasks: list[PreparedTask]
    golds: dict[str, list[Gold]]
    requests: list[tuple[list[Instance], PreparedRequests]]

    def answer(self) -> dict[int, list[Answer]]:
        """Answer every request anew; returns the answers by ``id`` of the request."""
        answers = {}
        for instances, requests in self.requests:
            for instance, found in zip(instances, requests.run(), strict=True):
                instance.resps = [answer.response for answer in found]
                instance.filtered_resps = {}
                answers[id(instance)] = found
        return answers


@dataclass(frozen=True)
class _PreparedSuite:
    """A suite whose requests are with an engine."""

    prompted: PromptedSuite
    engine: Engine
    rungs: list[_Rung]

    @property
    def tasks(self) -> tuple[PreparedTask, ...]:
        """Every task of the suite, whole."""
        return self.prompted.tasks

    @property
    def is_repeatable(self) -> bool:
        """See ``PreparedRequests``."""
        return all(one.is_repeatable for rung in self.rungs for _, one in rung.requests)

    def content(self) -> list[object]:
        """Everything the scores depend on beside the model, in a form that can be digested."""
        suite, model = self.prompted.suite, self.engine.language_model
        groups = {name: group.to_dict() for name, group in self.prompted.groups.items()}
        tokens = [[token_content(part, model) for part, _ in rung.requests] for rung in self.rungs]
        how: list[object] = [tokenizer_content(model.lm.tokenizer), generation_content(model)]
        how += [suite.batch_size, *self.engine.arithmetic, *image_content(model, self.tasks)]
        tasks = [
            [item_content(one, self.prompted.tags), settings_content(one), own_content(one.own)]
            for one in self.tasks
        ]
        return [sorted(suite.smooth), groups, tasks, tokens, how]


class _Answered:
    """What the model said to the rungs of one suite so far."""

    def __init__(self, run: _PreparedSuite) -> None:
        self.run = run
        self._values: dict[str, dict[tuple[str, str], list[tuple[int, Any]]]] = {
            one.name: {} for one in run.tasks
        }
        self._costs: dict[str, dict[int, ItemCost]] = {one.name: {} for one in run.tasks}
        self._golds: dict[str, list[Gold]] = {one.name: [] for one in run.tasks}
        self.verdicts: list[Verdict] = []

    def answer(self, rung: _Rung) -> dict[int, list[Answer]]:
        """Run the model on the next rung; see ``_Rung.answer``."""
        answers = rung.answer()
        for part in rung.tasks:
            for key, pairs in (self._scored(part) if part.items else {}).items():
                known = self._values[part.name].get(key, [])
                self._values[part.name][key] = sorted([*known, *pairs], key=itemgetter(0))
            self._costs[part.name] |= _costs(part, answers)
            golds = [*self._golds[part.name], *rung.golds[part.name]]
            self._golds[part.name] = sorted(golds, key=attrgetter("row"))
        return answers

    def _scored(self, part: PreparedTask) -> Values:
        values = item_values(part)
        own, verdicts = own_values(part)
        self.verdicts += verdicts
        return {**values, **own}

    def items(self) -> Iterator[ItemScore]:
        """Score the items so far."""
        for prepared in self.run.tasks:
            name = prepared.name
            smooth = {gold.row: gold.smooth for gold in self._golds[name]}
            yield from item_scores(prepared, self._values[name], self._costs[name], smooth)

    def aggregate(self, metrics: dict[str, dict[str, MetricValue]]) -> None:
        """Add the metrics of every task and group, once all rungs are answered."""
        for prepared in self.run.tasks:
            name = prepared.name
            metrics[name] = aggregate_task(prepared, self._values[name])
            if name in self.run.prompted.suite.smooth:
                metrics[name] |= smooth_metrics(prepared.task, self._golds[name])
        for name, group in self.run.prompted.groups.items():
            if table := aggregate_group(group, metrics):
                metrics[name] = table


def _scores(
    metrics: dict[str, dict[str, MetricValue]], answered: Sequence[_Answered], started: float
) -> Scores:
    items = tuple(item for one in answered for item in one.items())
    verdicts = tuple(verdict for one in answered for verdict in one.verdicts)
    return Scores(metrics, items, time.perf_counter() - started, verdicts=verdicts)


def _prepare(prompted: PromptedSuite, engine: Engine, shares: Sequence[float]) -> _PreparedSuite:
    cut = [cut_task(one, shares) if shares else [one] for one in prompted.tasks]
    smooth = prompted.suite.smooth
    rungs = [_rung(smooth, list(parts), engine) for parts in zip(*cut, strict=True)]
    return _PreparedSuite(prompted, engine, rungs)


def _rung(smooth: Collection[str], parts: list[PreparedTask], engine: Engine) -> _Rung:
    golds = {one.name: gold_answers(one, extra_requests=one.name in smooth) for one in parts}
    own = [request for one in parts for request in one.task.instances]
    known = set(map(id, own))
    extra = [r for found in golds.values() for g in found for r in g.requests if id(r) not in known]
    requests = [(part, engine.prepare(part)) for part in (own, extra) if part]
    return _Rung(parts, golds, requests)


def _costs(prepared: PreparedTask, answers: dict[int, list[Answer]]) -> dict[int, ItemCost]:
    """Tokens and seconds of every item, by row."""
    return {
        item.row: _sum(answer for request in item.requests for answer in answers[id(request)])
        for item in prepared.items
    }


def _sum(answers: Iterator[Answer]) -> ItemCost:
    costs = [(answer.tokens, answer.seconds) for answer in answers]
    return sum(tokens for tokens, _ in costs), sum(seconds for _, seconds in costs)
