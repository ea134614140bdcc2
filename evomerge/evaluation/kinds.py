"""Requests by kind: an engine answers likelihoods and greedy decoding, lm-eval anything else."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from evomerge.evaluation.batches import Pair
from evomerge.evaluation.engine import Answer
from evomerge.evaluation.harness import Instance, LanguageModel

__all__ = ["Part", "Requests", "Runner", "prepare_requests"]

Part = Callable[[], list[Answer]]  # answers the requests of one kind, in order


class Runner(Protocol):
    """What engines differ in. Each member prepares once, and returns what answers again."""

    @property
    def can_decode(self) -> bool:
        """Whether ``greedy`` yields what the model's own ``generate`` would."""

    def likelihoods(self, pairs: Sequence[Pair], tasks: Sequence[str]) -> Part:
        """Score continuations of contexts, and tell whether greedy decoding yields them.

        Prompts of one task, named for each request, may begin with the same tokens.
        """

    def windows(self, pairs: Sequence[Pair]) -> Part:
        """Score the windows of whole texts, in the order of the texts."""

    def greedy(
        self, texts: Sequence[str], tasks: Sequence[str], settings: Mapping[str, object]
    ) -> Part:
        """Answer prompts with the likeliest tokens, up to a stop string."""


@dataclass(frozen=True)
class Requests:
    """See ``PreparedRequests``."""

    instances: tuple[Instance, ...]
    parts: Mapping[str, Part]

    def run(self) -> list[list[Answer]]:
        """See ``PreparedRequests``."""
        answers: dict[str, Iterator[Answer]] = {k: iter(part()) for k, part in self.parts.items()}
        return [list(islice(answers[_kind(i)], i.repeats)) for i in self.instances]


def prepare_requests(instances: Sequence[Instance], lm: LanguageModel, runner: Runner) -> Requests:
    """Sort requests by kind and let the runner prepare each.

    Args:
        instances: Requests of any kind.
        lm: Tokenises; answers what the runner does not.
        runner: Of the engine.
    """
    kinds: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        kinds[_kind(instance)] += [instance] * instance.repeats
    parts = {kind: _part(requests, lm, runner) for kind, requests in kinds.items()}
    return Requests(tuple(instances), parts)


def _kind(instance: Instance) -> str:
    """Name what can be batched together: generation with the same settings, or likelihoods."""
    if instance.request_type != "generate_until":
        return str(instance.request_type)
    return f"generate_until {instance.args[1]}"


def _part(requests: Sequence[Instance], lm: LanguageModel, runner: Runner) -> Part:
    tasks = [str(request.task_name) for request in requests]
    match requests[0].request_type:
        case "loglikelihood":
            return runner.likelihoods([lm.pair(*request.args) for request in requests], tasks)
        case "loglikelihood_rolling":
            return _rolling([lm.windows(request.args[0]) for request in requests], runner)
        case "generate_until" if lm.is_plain_greedy(requests[0].args[1]) and runner.can_decode:
            texts = [request.args[0] for request in requests]
            return runner.greedy(texts, tasks, requests[0].args[1])
        case request_type:
            return _through_lm_eval(request_type, requests, lm)


def _rolling(windows: Sequence[Sequence[Pair]], runner: Runner) -> Part:
    part = runner.windows([pair for of_one in windows for pair in of_one])

    def answer() -> list[Answer]:
        answers = iter(part())
        return [_total(list(islice(answers, len(of_one)))) for of_one in windows]

    return answer


def _total(answers: Sequence[Answer]) -> Answer:
    """The log-likelihood of a text in windows."""
    return Answer(
        sum(answer.response[0] for answer in answers),  # type: ignore[index]
        sum(answer.tokens for answer in answers),
        sum(answer.seconds for answer in answers),
    )


def _through_lm_eval(request_type: str, requests: Sequence[Instance], lm: LanguageModel) -> Part:
    def answer() -> list[Answer]:
        start = time.perf_counter()
        responses = lm.own_answers(request_type, requests)
        seconds = (time.perf_counter() - start) / len(responses)
        return [Answer(r, len(lm.answer_tokens(str(r))), seconds) for r in responses]

    return answer
