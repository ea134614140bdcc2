"""The goals of an experiment: what is traded off, what is kept, what is measured for either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from evomerge.config.experiment import ConstraintConfig, Experiment
from evomerge.execution.costs import COST
from evomerge.study.constraints import Constraint, parse_bound
from evomerge.study.records import Objective, make_objectives

__all__ = ["bounds_of", "constraints_of", "costs_of", "objectives_of"]

Side = Literal["at_least", "at_most"]


def objectives_of(experiment: Experiment) -> tuple[Objective, ...]:
    """Build the objectives of an experiment, in order."""
    written = experiment.objectives
    return make_objectives(
        [(o.task, o.metric, o.direction) for o in written], [o.preference for o in written]
    )


def constraints_of(experiment: Experiment) -> tuple[Constraint, ...]:
    """Build the constraints of an experiment, one per bound."""
    return tuple(
        Constraint(config.task, config.metric, side, parse_bound(bound), str(bound))
        for config in experiment.constraints
        for side, bound in bounds_of(config)
    )


def bounds_of(config: ConstraintConfig) -> Iterator[tuple[Side, float | str]]:
    """List the bounds of a constraint by the key they are written at."""
    sides: tuple[Side, ...] = ("at_least", "at_most")
    for side in sides:
        if (bound := getattr(config, side)) is not None:
            yield side, bound


def costs_of(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """List what workers must measure beside scores, each once."""
    wanted: list[Objective | Constraint] = [*objectives, *constraints]
    return tuple(dict.fromkeys(m.metric for m in wanted if m.task == COST))
