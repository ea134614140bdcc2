"""Requests by kind: an engine answers likelihoods and plain decoding, lm-eval anything else."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from evomerge.evaluation.batches import Pair
from evomerge.evaluation.choosing import draw_seed
from evomerge.evaluation.engine import Answer
from evomerge.evaluation.harness import GENERATION, Instance
from evomerge.evaluation.images import images_of
from evomerge.evaluation.language_model import LanguageModel, is_sampling
from evomerge.evaluation.stops import Stops

__all__ = ["Asked", "Part", "Requests", "Runner", "prepare_requests", "through_lm_eval"]

Part = Callable[[], list[Answer]]  # answers the requests of one kind, in order
_Sample = tuple[Instance, int]  # a request, and which answer to it


class Runner(Protocol):
    """What engines differ in. Each member prepares once, and returns what answers again."""

    @property
    def can_decode(self) -> bool:
        """Whether ``texts`` yields what the model's own ``generate`` would."""

    def likelihoods(self, pairs: Sequence[Pair], tasks: Sequence[str]) -> Part:
        """Score continuations of contexts, and tell whether greedy decoding yields them.

        Prompts of one task, named for each request, may begin with the same tokens.
        """

    def windows(self, pairs: Sequence[Pair]) -> Part:
        """Score the windows of whole texts, in the order of the texts."""

    def texts(self, asked: Asked) -> Part:
        """Answer prompts with text, until the answers are finished."""

    def images(self, asked: Asked) -> Part:
        """Answer prompts with images in them; see ``through_lm_eval``."""


@dataclass(frozen=True)
class Asked:
    """Prompts that are answered with text, all with the same settings.

    Attributes:
        prompts: In order.
        tasks: Who asks each; prompts of one task may begin with the same tokens.
        settings: See ``generation_kwargs`` of tasks.
        stops: When an answer is finished.
        seeds: Of the draws of each answer; none takes the likeliest tokens.
        images: Of each prompt; none where they are text alone.
    """

    prompts: tuple[str, ...]
    tasks: tuple[str, ...]
    settings: Mapping[str, object]
    stops: Stops
    seeds: tuple[int, ...] = ()
    images: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True)
class Requests:
    """See ``PreparedRequests``."""

    instances: tuple[Instance, ...]
    kinds: tuple[str, ...]
    parts: Mapping[str, Part]
    is_repeatable: bool

    def run(self) -> list[list[Answer]]:
        """See ``PreparedRequests``."""
        answers: dict[str, Iterator[Answer]] = {k: iter(part()) for k, part in self.parts.items()}
        pairs = zip(self.instances, self.kinds, strict=True)
        return [list(islice(answers[kind], i.repeats)) for i, kind in pairs]


def prepare_requests(instances: Sequence[Instance], lm: LanguageModel, runner: Runner) -> Requests:
    """Sort requests by kind and let the runner prepare each.

    Args:
        instances: Requests of any kind.
        lm: Tokenises; answers what the runner does not.
        runner: Of the engine.
    """
    kinds = tuple(_kind(instance, lm) for instance in instances)
    together: dict[str, list[_Sample]] = defaultdict(list)
    for kind, instance in zip(kinds, instances, strict=True):
        together[kind] += [(instance, n) for n in range(instance.repeats)]
    parts = {kind: _part(samples, lm, runner) for kind, samples in together.items()}
    by_chance = any(_is_by_chance(samples[0][0], lm, runner) for samples in together.values())
    return Requests(tuple(instances), kinds, parts, is_repeatable=not by_chance)


def _is_by_chance(instance: Instance, lm: LanguageModel, runner: Runner) -> bool:
    """Whether lm-eval draws the answer: by the numbers that batches leave to it."""
    if instance.request_type != GENERATION or _is_prepared(instance, lm, runner):
        return False
    return is_sampling(instance.args[1])


def _is_prepared(instance: Instance, lm: LanguageModel, runner: Runner) -> bool:
    return not images_of(instance) and lm.is_plain(instance.args[1]) and runner.can_decode


def _kind(instance: Instance, lm: LanguageModel) -> str:
    """Name what can be batched together: generation with the same settings, or likelihoods."""
    if instance.request_type != GENERATION:
        return str(instance.request_type)
    prompt, settings, *_ = instance.args
    has_images = bool(images_of(instance))
    return f"generate_until {settings} {lm.begins_reasoning(prompt)} {has_images}"


def _part(samples: Sequence[_Sample], lm: LanguageModel, runner: Runner) -> Part:
    requests = [request for request, _ in samples]
    tasks = [str(request.task_name) for request in requests]
    match requests[0].request_type:
        case "loglikelihood":
            return runner.likelihoods([lm.pair(*request.args) for request in requests], tasks)
        case "loglikelihood_rolling":
            return _rolling([lm.windows(request.args[0]) for request in requests], runner)
        case _ if images_of(requests[0]):
            return runner.images(_asked(samples, lm))
        case _ if _is_prepared(requests[0], lm, runner):
            return runner.texts(_asked(samples, lm))
        case _:
            return through_lm_eval(_asked(samples, lm), lm)


def _asked(samples: Sequence[_Sample], lm: LanguageModel) -> Asked:
    first, settings, *_ = samples[0][0].args
    stops = Stops(lm, settings, is_begun=lm.begins_reasoning(first))
    prompts = tuple(request.args[0] for request, _ in samples)
    tasks = tuple(str(request.task_name) for request, _ in samples)
    images = tuple(images_of(request) for request, _ in samples)
    asked = Asked(prompts, tasks, settings, stops, images=images if any(images) else ())
    if not is_sampling(settings):
        return asked
    numbers = [n for _, n in samples]
    named = zip(tasks, prompts, numbers, strict=True)
    return replace(asked, seeds=tuple(draw_seed(settings, *one) for one in named))


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


def through_lm_eval(asked: Asked, lm: LanguageModel, at_once: int | None = None) -> Part:
    """Let lm-eval run the model itself, for every candidate from the beginning.

    Args:
        asked: The prompts.
        lm: The model.
        at_once: How many prompts go through it together; ``None``: its batch size.
    """
    thinks = lm.thinking is not None
    settings = {**asked.settings, **({"until": []} if thinks else {})}  # it occurs in reasoning

    def answer() -> list[Answer]:
        start = time.perf_counter()
        found = lm.own_answers(asked.prompts, settings, asked.images, at_once)
        seconds = (time.perf_counter() - start) / len(found)
        said = [asked.stops.until_finished(tokens) for _, tokens in found]
        answers = [asked.stops.answer(tokens, seconds) for tokens in said]
        if thinks:
            return answers
        pairs = zip(answers, found, strict=True)
        return [replace(one, response=text) for one, (text, _) in pairs]

    return answer
