"""What of a search has slopes: genes and objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment
from evomerge.errors import Fault
from evomerge.runs.parts import objectives_of
from evomerge.space.protocol import SearchSpace

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue

__all__ = ["SlopedParts", "slope_faults"]


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
        found = [tasks.sloped(o.task, o.metric, o.direction) for o in experiment.objectives]
        return cls(sloped_genes(space), tuple(one.reason for one in found))

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
