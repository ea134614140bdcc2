"""The sampler of an experiment: which one, with which options, over its space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from optuna.samplers import BaseSampler

from evomerge.config.experiment import Experiment, SamplerConfig
from evomerge.config.item_scores import ItemRows
from evomerge.config.objectives import objectives_of
from evomerge.errors import ConfigError, SpaceError
from evomerge.evaluation.store import ItemStore
from evomerge.samplers import (
    Budget,
    GeneSpace,
    build_sampler,
    choose,
    resolve_sampler,
    sampler_names,
)
from evomerge.space.protocol import SearchSpace

__all__ = ["make_sampler", "resolved_sampler", "sampler_choice", "sampler_faults"]


def make_sampler(experiment: Experiment, space: SearchSpace, items: ItemStore) -> BaseSampler:
    """Build the sampler of an experiment for its space.

    Args:
        experiment: Whose sampler, objectives and budget count.
        space: What varies.
        items: Item scores of the study, for samplers that look at them.

    Raises:
        ConfigError: Unknown sampler or option; ``assemble`` has looked for them.
    """
    rows = ItemRows(items, objectives_of(experiment))
    return _sampler(experiment, replace(_budget(experiment, space), item_scores=rows))


def resolved_sampler(experiment: Experiment, space: SearchSpace) -> SamplerConfig:
    """Settle which sampler runs, and the options that follow the budget, which may grow later."""
    sampler = experiment.sampler
    name, options = resolve_sampler(sampler.name, sampler.options, _budget(experiment, space))
    return SamplerConfig(name=name, **options)


def sampler_choice(experiment: Experiment, space: SearchSpace) -> tuple[str, str]:
    """Name the sampler that will run, and why: ``auto`` chooses by a rule, other names say it."""
    name, budget = experiment.sampler.name, _budget(experiment, space)
    if name != "auto":
        return name, f"named in the experiment; {sampler_names()[name]}"
    return choose(budget.space, n_objectives=budget.n_objectives, n_trials=budget.n_trials)


def sampler_faults(experiment: Experiment, space: SearchSpace | None, where: str) -> Iterator[str]:
    """Build the sampler once; where the space is wrong itself, for no gene, which any can do."""
    try:
        _sampler(experiment, _budget(experiment, space))
    except ConfigError as err:
        yield from (f"{where}: {fault}" for fault in err.faults)
    except SpaceError as err:
        yield from (f"{where}: sampler: {line}" for line in str(err).splitlines())


def _sampler(experiment: Experiment, budget: Budget) -> BaseSampler:
    return build_sampler(experiment.sampler.name, experiment.sampler.options, budget)


def _budget(experiment: Experiment, space: SearchSpace | None) -> Budget:
    return Budget(
        space=GeneSpace(space.distributions, space.defaults) if space else GeneSpace({}, {}),
        n_objectives=len(experiment.objectives),
        n_trials=experiment.budget.trials,
        seed=experiment.seed,
        constrained=bool(experiment.constraints),
    )
