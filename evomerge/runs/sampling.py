"""The sampler of an experiment over its space, and what it may see of single items."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from optuna.samplers import BaseSampler

from evomerge.arrays import FloatArray
from evomerge.config.experiment import Experiment, SamplerConfig
from evomerge.errors import Fault, SpaceError, collected
from evomerge.evaluation.store import ItemStore
from evomerge.runs.goals import objectives_of
from evomerge.runs.sloped import SlopedParts, slope_faults
from evomerge.samplers import (
    GeneSpace,
    SearchProblem,
    SlopesFirst,
    build_sampler,
    choose,
    resolve_sampler,
    sampler_names,
)
from evomerge.space.protocol import SearchSpace
from evomerge.study.records import Objective

__all__ = [
    "ItemRows",
    "make_sampler",
    "sampler_choice",
    "sampler_faults",
    "with_settled_sampler",
]


def make_sampler(
    experiment: Experiment, space: SearchSpace, sloped: SlopedParts, items: ItemStore
) -> BaseSampler:
    """Build the sampler of an experiment for its space.

    Args:
        experiment: Whose sampler, objectives and budget count.
        space: What varies.
        sloped: What of it has slopes.
        items: Item scores of the study, for samplers that look at them.

    Raises:
        ConfigError: Unknown sampler or option; ``Loaded.of`` has looked for them.
    """
    rows = ItemRows(items, objectives_of(experiment))
    return _sampler(experiment, replace(_problem(experiment, space, sloped), item_scores=rows))


def with_settled_sampler(
    experiment: Experiment, space: SearchSpace, sloped: SlopedParts
) -> Experiment:
    """Settle which sampler runs, and what follows the budget, which may grow later."""
    sampler, seeds, problem = (
        experiment.sampler,
        experiment.seeds,
        _problem(experiment, space, sloped),
    )
    name, options = resolve_sampler(sampler.name, sampler.options, problem)
    changed: dict[str, object] = {"sampler": SamplerConfig(name=name, **options)}
    climbs = choose(problem).climbs if sampler.name == "auto" else 0
    if climbs and not seeds.slopes:
        changed["seeds"] = seeds.model_copy(update={"slopes": climbs})
    return experiment.model_copy(update=changed)


def sampler_choice(
    experiment: Experiment, space: SearchSpace, sloped: SlopedParts
) -> tuple[str, str]:
    """Name the sampler that will run, and why: ``auto`` chooses by a rule, other names say it."""
    name, problem = experiment.sampler.name, _problem(experiment, space, sloped)
    if name != "auto":
        return name, f"named in the experiment; {sampler_names()[name]}"
    choice = choose(problem)
    is_along = choice.name == "slopes" or choice.climbs
    lacking = None if is_along else sloped.lacking(experiment)
    reason = choice.reason if lacking is None else f"{choice.reason}; not along slopes: {lacking}"
    return choice.name, reason


def sampler_faults(
    experiment: Experiment, space: SearchSpace | None, sloped: SlopedParts | None
) -> list[Fault]:
    """Build the sampler once; where the parts before it are wrong, only its options are looked at.

    Args:
        experiment: Names the sampler.
        space: ``None`` if it is wrong itself.
        sloped: ``None`` if the space or the tasks are wrong.
    """
    faults = [] if sloped is None else [*slope_faults(experiment, sloped)]
    if faults:
        return faults
    consequence = () if sloped is not None else (SpaceError,)
    with collected(faults, "sampler"), suppress(*consequence):
        _sampler(experiment, _problem(experiment, space, sloped or SlopedParts()))
    return faults


def _sampler(experiment: Experiment, problem: SearchProblem) -> BaseSampler:
    sampler = build_sampler(experiment.sampler.name, experiment.sampler.options, problem)
    n_first = experiment.seeds.slopes
    return SlopesFirst(sampler, n_first, problem) if n_first else sampler


def _problem(
    experiment: Experiment, space: SearchSpace | None, sloped: SlopedParts
) -> SearchProblem:
    return SearchProblem(
        space=_genes(space) if space else GeneSpace({}, {}),
        n_objectives=len(experiment.objectives),
        n_trials=experiment.budget.trials,
        seed=experiment.seed,
        constrained=bool(experiment.constraints),
        sloped=sloped.genes,
        sloped_objectives=sloped.objectives,
        preference=_preference(experiment),
    )


def _preference(experiment: Experiment) -> tuple[float, ...]:
    """How much each objective counts, if any says so; one objective is its own sum."""
    given = [o.preference for o in experiment.objectives]
    if len(given) == 1 or all(p is None for p in given):
        return ()
    return tuple(1.0 if p is None else p for p in given)


def _genes(space: SearchSpace) -> GeneSpace:
    return GeneSpace(space.distributions, space.defaults, space.depths)


Rows = tuple[FloatArray, ...]


class ItemRows:
    """Reads the scores on which the objectives rest; each trial's once.

    The items are those of the first trial that is looked up and has any, so that results are a
    function of what is stored: samplers look trials up by number.

    Args:
        store: The study's item scores.
        objectives: Their tasks and metrics say which scores count, their directions which way is
            better.
    """

    def __init__(self, store: ItemStore, objectives: Sequence[Objective]) -> None:
        self._store, self._objectives = store, objectives
        self._items: list[list[int]] = []  # per objective
        self._rows: dict[int, Rows | None] = {}

    def __call__(self, trial: int) -> Rows | None:
        """Return the scores of a finished trial, larger is better; ``None`` if it has none.

        Returns:
            Per objective (items,), NaN where the trial was not scored; no items for an objective
            that is no mean of item scores, such as a cost or a metric of a group of tasks.
        """
        if trial not in self._rows:
            self._rows[trial] = self._read(trial)
        return self._rows[trial]

    def _read(self, trial: int) -> Rows | None:
        stored = self._store.read_trial(trial, "search")
        columns = [
            {s.item: s.score for s in stored if (s.task, s.metric) == (o.task, o.metric)}
            for o in self._objectives
        ]
        if not any(columns):
            return None
        self._items = self._items or [list(column) for column in columns]
        return tuple(
            o.sign * np.array([column.get(item, np.nan) for item in items], dtype=np.float64)
            for o, column, items in zip(self._objectives, columns, self._items, strict=True)
        )
