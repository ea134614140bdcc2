"""Measures what the live candidate costs: only what objectives or constraints ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from transformers import PreTrainedTokenizerBase

from evomerge.errors import RecipeError
from evomerge.evaluation.answers import output_tokens
from evomerge.evaluation.divergence import Divergence
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.scores import MetricValue, Scores
from evomerge.execution.costs import Cost
from evomerge.execution.protocol import WorkerSpec
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.size import layers_run, n_parameters
from evomerge.merging.sources import Sources
from evomerge.models.tiles import row_blocks
from evomerge.recipe.recipe import Recipe

__all__ = ["CostMeter", "relative_distance"]


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
        candidate: LiveCandidate,
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
            RecipeError: A distance of a data-flow candidate: its layers match no reference's.
        """
        n_items = sum(len(task.items) for task in prepared.tasks)
        layers = layers_run(recipe, self._sources.architecture.n_layers)
        measures: Mapping[str, Callable[[str], MetricValue]] = {
            "parameters": lambda _: _exact(n_parameters(layers, self._sources)),
            "hops": lambda _: _exact(len(layers)),
            "output_tokens": lambda _: output_tokens(prepared.tasks, self._tokenizer),
            "seconds_per_item": lambda _: MetricValue(scores.seconds / n_items, math.nan, n_items),
            "distance": lambda reference: _exact(self._distance(recipe, reference)),
            "kl": lambda reference: self._kl(split, reference),
        }
        return {m: measures[cost.name](cost.reference) for m, cost in self._costs.items()}

    def _kl(self, split: str, reference: str) -> MetricValue:
        return self._divergences[split].measure(reference)

    def _distance(self, recipe: Recipe, reference: str) -> float:
        if getattr(recipe, "path", ()):
            raise RecipeError("expected a merge without a data-flow path for the cost distance")
        experts = self._sources.experts
        source = self._sources.base if reference == "base" else experts[reference]
        assert source is not None, "workers always have a base"
        return relative_distance(self._candidate.tensors, source.tensor)


def _exact(value: float) -> MetricValue:
    return MetricValue(float(value), 0.0, 1)


@torch.no_grad()
def relative_distance(
    candidate: Mapping[str, torch.Tensor], reference: Callable[[str], torch.Tensor]
) -> float:
    """Measure ``||candidate - reference|| / ||reference||`` over all merged parameters.

    Relative to the reference itself rather than to a task vector, so that it is defined for every
    reference and comparable between experiments.

    Args:
        candidate: Tensors by name, of any floating dtype, on one device.
        reference: Returns the reference's tensor of a name.

    Returns:
        Dimensionless, 0 for equal models. Summed in float64; differences are float32.

    Notes:
        Memory: a few blocks of a quarter million elements.
    """
    devices = {tensor.device for tensor in candidate.values()}
    squares = {device: torch.zeros(2, dtype=torch.float64, device=device) for device in devices}
    for name, own in candidate.items():
        other = reference(name)
        for rows in row_blocks(own.shape):
            theirs = other[rows].to(own.device, torch.float32)
            difference = own[rows].to(torch.float32) - theirs
            pair = [block.square().sum(dtype=torch.float64) for block in (difference, theirs)]
            squares[own.device] += torch.stack(pair)
    far, norm = sum((total.cpu() for total in squares.values()), torch.zeros(2)).tolist()
    return float((far / norm) ** 0.5) if norm > 0 else float(far**0.5)
