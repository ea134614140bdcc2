"""What of a search has slopes: genes and objectives; and what climbs along them cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.config.experiment import Experiment
from evomerge.errors import Fault
from evomerge.runs.parts import objectives_of
from evomerge.space.protocol import SearchSpace

if TYPE_CHECKING:
    import torch

    from evomerge.evaluation.catalogue import TaskCatalogue
    from evomerge.merging.sources import Sources

__all__ = ["SlopedParts", "climb_bytes", "slope_faults"]

# Numbers that a decoder layer keeps per token for the way back, by the size of what they are of:
# norms, queries, keys, values, attention, residuals; gate, up, activation, product.
_OF_HIDDEN, _OF_INTERMEDIATE = 10, 4


@dataclass(frozen=True)
class SlopedParts:
    """What of a search has slopes.

    Attributes:
        genes: Real numbers along which objectives may change smoothly.
        reasons: Why an objective of the study has no slope; ``None`` for each that has.
    """

    genes: frozenset[str] = frozenset()
    reasons: tuple[str | None, ...] = ()

    @classmethod
    def of(cls, experiment: Experiment, space: SearchSpace, tasks: TaskCatalogue) -> SlopedParts:
        """Find out without a model.

        Args:
            experiment: Its objectives and engine count.
            space: What varies.
            tasks: With the prompts of the search items.
        """
        from evomerge.evaluation.sloped_objectives import NO_GRADIENTS
        from evomerge.space.slopes import sloped_genes

        if experiment.engine == "vllm":
            return cls(sloped_genes(space), (NO_GRADIENTS,) * len(experiment.objectives))
        reasons = [tasks.slope_reason(o.task, o.metric) for o in experiment.objectives]
        return cls(sloped_genes(space), tuple(reasons))

    @property
    def objectives(self) -> tuple[bool, ...]:
        """Which objectives have slopes."""
        return tuple(reason is None for reason in self.reasons)


def slope_faults(experiment: Experiment, sloped: SlopedParts) -> Iterator[Fault]:
    """What stands in the way of climbs that an experiment asks for by name."""
    seeds = experiment.seeds.slopes
    if experiment.sampler.name != "slopes" and not seeds:
        return
    is_sampler = experiment.sampler.name == "slopes"
    path = ("sampler",) if is_sampler else ("seeds", "slopes")
    hint = "name another sampler, e.g. auto" if is_sampler else "drop it"
    if not sloped.genes:
        text = (
            "expected genes with slopes, such as coefficients or scales of hops, got none: "
            "choices, whole numbers and what moves masks have none"
        )
        yield Fault(path, text, hint)
    if not any(sloped.objectives):
        named = zip(objectives_of(experiment), sloped.reasons, strict=True)
        why = "; ".join(f"{objective.name} ({reason})" for objective, reason in named)
        yield Fault(path, f"expected an objective with slopes, got none: {why}", hint)


def climb_bytes(sources: Sources, dtype: torch.dtype) -> float:
    """Estimate what a backward pass needs beside the live model.

    That is what the layers keep of a microbatch for the way back, two gradients of the largest
    tensor, and the gradients that wait to be reduced.

    Args:
        sources: The models, opened.
        dtype: Of the live model.
    """
    from evomerge.evaluation.item_losses import LossSettings
    from evomerge.merging.slopes import GRADIENT_BYTES

    config: dict[str, Any] = sources.anchor.config
    hidden = config.get("hidden_size", 0)
    intermediate = config.get("intermediate_size", 4 * hidden)
    per_token = _OF_HIDDEN * hidden + _OF_INTERMEDIATE * intermediate
    kept = sources.architecture.n_layers * per_token * LossSettings().n_tokens
    sizes = [math.prod(sources.anchor.shape(name)) for name in sources.names]
    waiting = min(GRADIENT_BYTES, sum(sizes) * dtype.itemsize)
    return float((kept + 2 * max(sizes)) * dtype.itemsize + waiting)
