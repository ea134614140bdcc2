"""The merge as a live model that answers each prompt with the differences that it needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from evomerge.ensembles.loading import EnsembleCosts
from evomerge.errors import ConfigError, EvaluationError
from evomerge.evaluation.engine import Answer, PreparedRequests
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.images import images_of
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.transformers_engine import TransformersEngine
from evomerge.merging.candidate import load_model
from evomerge.merging.spread import to_gpu
from evomerge.models.outline import load_tokenizer
from evomerge.models.parameters import live_tensors
from evomerge.twins.differences import with_differences
from evomerge.twins.file import Twins
from evomerge.twins.router import Router, prompt_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evomerge.evaluation.reasoning import Tags
    from evomerge.evaluation.suite import BatchSize

__all__ = ["LiveTwins", "RoutedEngine"]

_Weights = Mapping[str, float]


class LiveTwins:
    """A merge with differences, live, with all that scoring it takes.

    Args:
        twins: On disk, with a router.

    Raises:
        ConfigError: There is no router.
        CheckpointError: The merge is another than when the differences were made.
    """

    def __init__(self, twins: Twins) -> None:
        if twins.file.router is None:
            raise ConfigError(
                f"expected a router beside {twins.folder}, got none; make one: evomerge twins "
                "RECIPE --prompts FILE, or restore an expert and evaluate that"
            )
        self._twins, merge = twins, twins.merge
        self._router = Router.read(twins.path(twins.file.router))
        self.tokenizer = load_tokenizer(twins.folder)
        self.model: PreTrainedModel = load_model(str(twins.folder), "auto")
        to_gpu(self.model)
        some = next(iter(twins.differences.values()))
        self._live = live_tensors(self.model, [name for name in merge.names if name in some])

    @property
    def costs(self) -> EnsembleCosts:
        """What it takes: a model's passes, and before the first one more over the prompt."""
        n = sum(parameter.numel() for parameter in self.model.parameters())
        held = sum(one.n_elements for one in self._twins.differences.values())
        return EnsembleCosts(n + held + self._router.n_elements, n, 1)

    def make_engine(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: BatchSize,
        tags: Tags | None = None,
    ) -> RoutedEngine:
        """Make what answers; see ``MakeEngine``."""
        return RoutedEngine(self, TransformersEngine(model, tokenizer, batch_size, tags))

    def weigh(self, lm: LanguageModel, prompts: Sequence[str]) -> list[_Weights]:
        """Let the router read prompts in the merge.

        Returns:
            For each, the weights of the differences by expert; their sum is 1.
        """
        self.fill({})
        found = self._router.weights(prompt_states(self.model, lm, prompts)).tolist()
        return [dict(zip(self._twins.file.experts, own, strict=True)) for own in found]

    @torch.no_grad()
    def fill(self, weights: _Weights) -> None:
        """Make the live model merge + Σ weight · difference."""
        for name, view in self._live.items():
            merge = self._twins.merge.tensor(name)
            view.copy_(with_differences(name, merge, self._twins.differences, weights))


class RoutedEngine:
    """See ``Engine``. Requests with one prompt are answered together, by the model for it.

    The prompt is what stands before a continuation or an answer; of a text that is scored as a
    whole, the text.

    Args:
        twins: Whose live model answers.
        engine: Runs it.
    """

    def __init__(self, twins: LiveTwins, engine: TransformersEngine) -> None:
        self._twins, self._engine = twins, engine

    @property
    def language_model(self) -> LanguageModel:
        """See ``Engine``."""
        return self._engine.language_model

    @property
    def sloped_model(self) -> None:
        """See ``Engine``: parameters depend on prompts."""
        return

    @property
    def arithmetic(self) -> tuple[object, ...]:
        """See ``Engine``."""
        return ("routed", *self._engine.arithmetic)

    def prepare(self, instances: Sequence[Instance]) -> PreparedRequests:
        """See ``Engine``."""
        if any(map(images_of, instances)):
            raise EvaluationError("expected prompts of text alone for a router, got images")
        places: dict[str, list[int]] = defaultdict(list)
        for i, instance in enumerate(instances):
            places[instance.args[0]].append(i)
        weights = self._twins.weigh(self.language_model, list(places))
        groups = tuple(
            _Group(tuple(own), weigh, self._engine.prepare([instances[i] for i in own]))
            for own, weigh in zip(places.values(), weights, strict=True)
        )
        return _Routed(self._twins, groups)


@dataclass(frozen=True)
class _Group:
    """Requests with one prompt: their places, the weights, and the requests."""

    places: tuple[int, ...]
    weights: _Weights
    requests: PreparedRequests


@dataclass(frozen=True)
class _Routed:
    """See ``PreparedRequests``."""

    twins: LiveTwins
    groups: tuple[_Group, ...]

    @property
    def is_repeatable(self) -> bool:
        """See ``PreparedRequests``."""
        return all(group.requests.is_repeatable for group in self.groups)

    def run(self) -> list[list[Answer]]:
        """See ``PreparedRequests``."""
        found: dict[int, list[Answer]] = {}
        for group in self.groups:
            self.twins.fill(group.weights)
            found |= zip(group.places, group.requests.run(), strict=True)
        return [found[i] for i in range(len(found))]
