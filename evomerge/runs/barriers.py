"""Loss barriers between models: whether merges of them lie in one basin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from evomerge.observation.examples import Example, gold_examples
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Recipe, Rule

if TYPE_CHECKING:
    from evomerge.merging.candidate import LiveCandidate
    from evomerge.merging.sources import Sources
    from evomerge.models.reference import ModelRef
    from evomerge.observation.reading import Tokenised
    from evomerge.runs.loaded import Loaded

__all__ = ["Barrier", "barriers", "search_barriers"]

_STEPS = 4  # between two models
_N_EXAMPLES = 64


@dataclass(frozen=True)
class Barrier:
    """What is lost between two models.

    Attributes:
        models: Their names.
        losses: In nats per token of the answers, at equal steps from the first to the second.
    """

    models: tuple[str, str]
    losses: tuple[float, ...]

    @property
    def height(self) -> float:
        """The most by which the losses rise above the straight line between the ends, or 0."""
        last = len(self.losses) - 1
        first, second = self.losses[0], self.losses[-1]
        chord = [first + (second - first) * i / last for i in range(last + 1)]
        return max(loss - line for loss, line in zip(self.losses, chord, strict=True))


def search_barriers(
    loaded: Loaded,
    sources: Sources,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Barrier, ...]:
    """Measure barriers on the first items that a search would see; see ``barriers``."""
    examples = gold_examples(loaded.tasks.prompted("search"), _N_EXAMPLES)
    return barriers(sources, loaded.models.experts, examples, progress)


def barriers(
    sources: Sources,
    experts: Mapping[str, ModelRef],
    examples: Sequence[Example],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Barrier, ...]:
    """Measure the loss along the straight lines between all models.

    Args:
        sources: Opened models with a base.
        experts: What they were opened from.
        examples: What the loss is of: answers, or whole texts.
        progress: Called after each model on a line with how many are done, and how many there are.

    Returns:
        Of every pair, the base among them. Cost: three models per pair and one per model are run
        over the examples.

    Source:
        Frankle et al. 2020, arXiv:1912.05671, section 2 (linear mode connectivity).
    """
    from evomerge.merging.candidate import LiveCandidate
    from evomerge.observation.reading import tokenised

    read, candidate = tokenised(examples, sources.anchor), LiveCandidate(sources)
    pairs, known = list(combinations((BASE, *experts), 2)), dict[str, float]()
    total = len(pairs) * (_STEPS - 1) + 1 + len(experts)

    def loss(coefficients: Mapping[str, float]) -> float:
        key = str(sorted(item for item in coefficients.items() if item[1]))
        if key not in known:
            own = {name: coefficients.get(name, 0.0) for name in experts}
            rule = Rule("task_arithmetic", {"coefficient": own})
            candidate.materialise(Recipe(experts, (rule,), base=str(sources.anchor.folder)))
            known[key] = _loss(candidate, read)
            progress(len(known), total)
        return known[key]

    return tuple(Barrier(pair, tuple(map(loss, _line(*pair)))) for pair in pairs)


def _line(first: str, second: str) -> Iterator[Mapping[str, float]]:
    """Say what of each task vector makes the models from one to the other."""
    for i in range(_STEPS + 1):
        t = i / _STEPS
        yield {name: share for name, share in ((first, 1 - t), (second, t)) if name != BASE}


@torch.no_grad()
def _loss(candidate: LiveCandidate, read: Tokenised) -> float:
    from evomerge.observation.labels import log_likelihood

    model, sums = candidate.model, 0.0
    for i, reading in enumerate(read.readings):
        sums -= float(log_likelihood(model, reading, read.max_length, "gold", example=i))
    return sums / sum(len(reading.continuation) for reading in read.readings)
