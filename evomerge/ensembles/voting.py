"""Models that answer apart and then vote."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.engine import Answer, PreparedRequests
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.reasoning import Tags
from evomerge.evaluation.suite import BatchSize
from evomerge.evaluation.transformers_engine import TransformersEngine

__all__ = ["VotingEngine"]

_HALF = 0.5


class VotingEngine:
    """See ``Engine``. Every model answers alone; what counts is what most of them say.

    Of several continuations of one item each model chooses the likeliest; the one that is chosen
    most gets log-likelihood 0, the others less, so that it is the one that scores by likelihood
    take, by that per byte, too. Of texts the most frequent is the answer; where votes are equal,
    the one that an earlier model gave. Single log-likelihoods are those of the mean probability.

    Args:
        models: Causal language models.
        shares: What the vote of each counts.
        tokenizer: Of all of them.
        batch_size: See ``TransformersEngine``.
        tags: See ``MakeEngine``.
    """

    def __init__(
        self,
        models: Sequence[PreTrainedModel],
        shares: Sequence[float],
        tokenizer: PreTrainedTokenizerBase,
        batch_size: BatchSize,
        tags: Tags | None = None,
    ) -> None:
        self._engines = [TransformersEngine(model, tokenizer, batch_size, tags) for model in models]
        self._shares = tuple(shares)

    @property
    def language_model(self) -> LanguageModel:
        """See ``Engine``."""
        return self._engines[0].language_model

    @property
    def sloped_model(self) -> None:
        """See ``Engine``: a vote has no slope."""
        return

    @property
    def arithmetic(self) -> tuple[object, ...]:
        """See ``Engine``."""
        return ("vote", self._shares, *(engine.arithmetic for engine in self._engines))

    def prepare(self, instances: Sequence[Instance]) -> PreparedRequests:
        """See ``Engine``."""
        own = tuple(engine.prepare(instances) for engine in self._engines)
        return _Voted(tuple(instances), own, self._shares)


@dataclass(frozen=True)
class _Voted:
    """See ``PreparedRequests``."""

    instances: tuple[Instance, ...]
    prepared: tuple[PreparedRequests, ...]
    shares: tuple[float, ...]

    @property
    def is_repeatable(self) -> bool:
        """See ``PreparedRequests``."""
        return all(one.is_repeatable for one in self.prepared)

    def run(self) -> list[list[Answer]]:
        """See ``PreparedRequests``."""
        by_model = [requests.run() for requests in self.prepared]
        chosen = self._chosen([[found[0].response for found in model] for model in by_model])
        return [
            [self._together(i, said, chosen) for said in zip(*found, strict=True)]
            for i, found in enumerate(zip(*by_model, strict=True))
        ]

    def _together(self, i: int, answers: Sequence[Answer], chosen: Mapping[int, float]) -> Answer:
        """Make one answer to one request of those of all models."""
        said: list[Any] = [answer.response for answer in answers]
        seconds = sum(answer.seconds for answer in answers)
        match self.instances[i].request_type:
            case "loglikelihood":
                likelihood = chosen.get(i, self._mean([value for value, _ in said]))
                is_greedy = self._weight([greedy for _, greedy in said]) > _HALF
                return Answer((likelihood, is_greedy), answers[0].tokens, seconds)
            case "loglikelihood_rolling":
                return Answer(self._mean(said), answers[0].tokens, seconds)
            case _:
                counts = [self._weight([text == other for other in said]) for text in said]
                return replace(answers[counts.index(max(counts))], seconds=seconds)

    def _chosen(self, responses: Sequence[Sequence[Any]]) -> dict[int, float]:
        """Give log-likelihoods to the continuations of every item that has several."""
        items: dict[tuple[str, int], list[int]] = defaultdict(list)
        for i, instance in enumerate(self.instances):
            if instance.request_type == "loglikelihood":
                items[str(instance.task_name), int(instance.doc_id)].append(i)
        several = [requests for requests in items.values() if len(requests) > 1]
        return {i: value for requests in several for i, value in self._votes(requests, responses)}

    def _votes(
        self, requests: Sequence[int], responses: Sequence[Sequence[Any]]
    ) -> list[tuple[int, float]]:
        likelihoods = [[own[i][0] for i in requests] for own in responses]
        votes = [max(range(len(requests)), key=own.__getitem__) for own in likelihoods]
        counts = [self._weight([vote == i for vote in votes]) for i in range(len(requests))]
        means = [self._mean(own) for own in zip(*likelihoods, strict=True)]
        first = max(range(len(requests)), key=lambda i: (counts[i], means[i]))
        behind = [counts[i] - counts[first] - 1 for i in range(len(requests))]
        return [(r, 0.0 if i == first else behind[i]) for i, r in enumerate(requests)]

    def _weight(self, votes: Sequence[bool]) -> float:
        """Add up the shares of those that vote for something."""
        return sum(share for share, is_for in zip(self.shares, votes, strict=True) if is_for)

    def _mean(self, log_likelihoods: Sequence[float]) -> float:
        """Log-likelihood of the mean probability."""
        highest = max(log_likelihoods)
        if not math.isfinite(highest):
            return highest
        scaled = (math.exp(value - highest) for value in log_likelihoods)
        return highest + math.log(
            sum(share * value for share, value in zip(self.shares, scaled, strict=True))
        )
