"""What of a search has slopes: genes and objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment, ObjectiveConfig
from evomerge.errors import Fault
from evomerge.execution.costs import COST, why_no_slope
from evomerge.runs.goals import objectives_of
from evomerge.space.protocol import SearchSpace

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue
    from evomerge.evaluation.item_losses import LossKind
    from evomerge.evaluation.sloped_objectives import SlopedObjective
    from evomerge.merging.sources import Sources
    from evomerge.runs.fitted_steps import FittedSteps

__all__ = ["SlopedParts", "slope_faults"]

_NO_GENES = "choices, whole numbers and what moves masks have none"


@dataclass(frozen=True)
class SlopedParts:
    """What of a search has slopes.

    Attributes:
        genes: Real numbers along which objectives may change smoothly.
        reasons: Why an objective of the study has no slope; ``None`` for each that has.
        steps: How steps are run; ``None`` where nothing has slopes, or for a model nobody knows.
    """

    genes: frozenset[str] = frozenset()
    reasons: tuple[str | None, ...] = ()
    steps: FittedSteps | None = None

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        space: SearchSpace,
        tasks: TaskCatalogue,
        sources: Sources | None = None,
    ) -> SlopedParts:
        """Find out without loading a model.

        Args:
            experiment: Its objectives, engine and execution count.
            space: What varies.
            tasks: With the prompts of the search items.
            sources: The models; ``None``: nobody asks for the memory of steps.
        """
        from evomerge.evaluation.sloped_objectives import NO_GRADIENTS
        from evomerge.space.slopes import sloped_genes

        genes = sloped_genes(space)
        if experiment.engine.name == "vllm":
            return cls(genes, (NO_GRADIENTS,) * len(experiment.objectives))
        kind = _loss_kind(experiment)
        found = [_sloped(objective, tasks, kind) for objective in experiment.objectives]
        reasons = tuple(one.reason for one in found)
        if sources is None or not genes or all(reasons):
            return cls(genes, reasons)
        from evomerge.runs.fitted_steps import fitted_steps

        dtype, engine = experiment.models.dtype, experiment.engine
        steps = fitted_steps(sources, dtype, found, experiment.execution, engine)
        return cls(genes, reasons, steps)

    @property
    def obstacle(self) -> str | None:
        """Why no worker can take a step, whatever has slopes; ``None`` if they can."""
        return None if self.steps is None else self.steps.obstacle

    @property
    def objectives(self) -> tuple[bool, ...]:
        """Which objectives can be climbed."""
        return tuple(reason is None and self.obstacle is None for reason in self.reasons)

    def lacking(self, experiment: Experiment) -> str | None:
        """Say why ``auto`` cannot take ``slopes``, in one line; ``None`` if something else decides.

        Args:
            experiment: Names the objectives.
        """
        if not self.genes:
            return f"no gene has a slope: {_NO_GENES}"
        return self.without(experiment) or self.obstacle

    def without(self, experiment: Experiment) -> str:
        """Say which objectives have no slope, and why, each reason once; empty if all have.

        Args:
            experiment: Names the objectives.
        """
        names: dict[str, list[str]] = {}
        for one, reason in zip(objectives_of(experiment), self.reasons, strict=True):
            if reason:
                names.setdefault(reason, []).append(one.name)
        return "; ".join(
            f"{', '.join(own)} {'has' if len(own) == 1 else 'have'} no slope: {reason}"
            for reason, own in names.items()
        )


def _sloped(wanted: ObjectiveConfig, tasks: TaskCatalogue, kind: LossKind) -> SlopedObjective:
    """Find the items of an objective, or why it has no slope; a cost has none of its own."""
    from evomerge.evaluation.sloped_objectives import SlopedObjective

    if wanted.task == COST:
        return SlopedObjective((), why_no_slope(wanted.metric, wanted.direction))
    return tasks.sloped(wanted.task, wanted.metric, wanted.direction, kind)


def _loss_kind(experiment: Experiment) -> LossKind:
    """Tell what the losses of a search look at."""
    sampler = experiment.sampler
    is_entropy = sampler.name == "slopes" and sampler.options.get("loss") == "entropy"
    return "entropy" if is_entropy else "gold"


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
            f"{_NO_GENES}"
        )
        yield Fault(path, text, hint)
    if all(sloped.reasons):
        named = zip(objectives_of(experiment), sloped.reasons, strict=True)
        why = "; ".join(f"{objective.name} ({reason})" for objective, reason in named)
        yield Fault(path, f"expected an objective with slopes, got none: {why}", hint)
    if sloped.steps is not None and sloped.obstacle is not None:
        text = f"expected memory for steps along slopes: {sloped.obstacle}"
        yield Fault(path, text, f"{sloped.steps.hint}, or {hint}")
