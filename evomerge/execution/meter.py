"""Measures what the live candidate costs: only what objectives or constraints ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from evomerge.errors import RecipeError
from evomerge.evaluation.answers import output_tokens, truncated
from evomerge.evaluation.divergence import Divergence
from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.scores import MetricValue, Scores
from evomerge.execution.costs import Cost
from evomerge.execution.protocol import WorkerSpec
from evomerge.execution.together import TogetherCandidate
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.distance import distance_backward, relative_distance
from evomerge.merging.size import layers_run, n_parameters
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe

__all__ = ["CostMeter"]


class CostMeter:
    """The costs of one worker's candidates.

    Args:
        spec: Its ``costs`` are measured.
        sources: The worker's models.
        candidate: The worker's live model.
        tokenizer: Counts the tokens of answers.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        sources: Sources,
        candidate: LiveCandidate | TogetherCandidate,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._spec, self._sources, self._candidate = spec, sources, candidate
        self._tokenizer = tokenizer
        self._costs = {metric: Cost.of(metric) for metric in spec.costs}
        self._divergences: dict[str, Divergence] = {}

    def prepare(self, split: str, prepared: PreparedSuites) -> None:
        """Keep what the references of ``kl`` predict for one split; overwrites the live model."""
        references = [cost.reference for cost in self._costs.values() if cost.name == "kl"]
        if not references:
            return
        divergence = Divergence(self._candidate.model, prepared.tasks, self._tokenizer)
        for reference in references:
            self._candidate.materialise(self._spec.parent_recipe(reference))
            divergence.remember(reference)
        self._divergences[split] = divergence

    def measure(
        self, recipe: Recipe, split: str, prepared: PreparedSuites, scores: Scores
    ) -> dict[str, MetricValue]:
        """Measure the live candidate right after it was scored.

        Args:
            recipe: What the live model holds.
            split: What it was scored on.
            prepared: The suites of that split; they still hold the candidate's answers.
            scores: What they yielded.

        Returns:
            By metric of the task ``cost``. Exact figures have standard error 0.

        Raises:
            RecipeError: A distance of a data-flow candidate, whose layers match no reference's, or
                of an ensemble.
        """
        n_items = sum(len(task.items) for task in prepared.tasks)
        layers = layers_run(recipe, self._sources.architecture.n_layers)
        n_models = 1 if recipe.ensemble is None else len(recipe.ensemble.shares)
        measures: Mapping[str, Callable[[str], MetricValue]] = {
            "parameters": lambda _: _exact(n_models * n_parameters(layers, self._sources)),
            "hops": lambda _: _exact(n_models * len(layers)),
            "forwards": lambda _: _exact(n_models),
            "output_tokens": lambda _: output_tokens(prepared.generated(), self._tokenizer),
            "truncated": lambda _: truncated(prepared.generated()),
            "seconds_per_item": lambda _: MetricValue(scores.seconds / n_items, math.nan, n_items),
            "distance": lambda reference: _exact(self._distance(recipe, reference)),
            "kl": lambda reference: self._kl(split, reference),
        }
        return {m: measures[cost.name](cost.reference) for m, cost in self._costs.items()}

    def n_items(self, metric: str) -> int:
        """Count what the slope of a cost is a mean over: prompts of ``kl``, 1 of ``distance``."""
        is_kl = self._costs[metric].name == "kl"
        return self._divergences["search"].n_prompts if is_kl else 1

    def backward(
        self, metric: str, rows: Sequence[int], factor: float, settings: LossSettings
    ) -> float:
        """Add the slope of a cost that has one to the gradients of the live model.

        Args:
            metric: One that ``why_no_slope`` has nothing to say of.
            rows: Which of its items, in ascending order.
            factor: What the gradients are multiplied with.
            settings: How passes are run.

        Returns:
            The cost by these items.
        """
        cost = self._costs[metric]
        if cost.name == "kl":
            divergence = self._divergences["search"]
            return divergence.backward(cost.reference, rows, factor, settings)
        parameters, tensors = self._candidate.model.parameters(), self._candidate.tensors
        return distance_backward(parameters, tensors, self._reference(cost.reference), factor)

    def _kl(self, split: str, reference: str) -> MetricValue:
        return self._divergences[split].measure(reference)

    def _distance(self, recipe: Recipe, reference: str) -> float:
        if recipe.ensemble is not None:
            raise RecipeError("expected a merge for the cost distance, got an ensemble")
        if getattr(recipe, "path", ()):
            raise RecipeError("expected a merge without a data-flow path for the cost distance")
        return relative_distance(self._candidate.tensors, self._reference(reference))

    def _reference(self, name: str) -> Callable[[str], torch.Tensor]:
        """Read the tensors of the base or an expert."""
        source = self._sources.base if name == "base" else self._sources.experts[name]
        assert source is not None, "workers always have a base"
        return source.tensor


def _exact(value: float) -> MetricValue:
    return MetricValue(float(value), 0.0, 1)
