"""What an experiment trades off, and what its merges must keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from evomerge.config.experiment import Experiment
from evomerge.execution.costs import COST
from evomerge.study.constraints import Constraint, parse_bound
from evomerge.study.records import Objective
from evomerge.study.trials import make_objectives

__all__ = ["constraints_of", "costs_of", "objectives_of"]


def objectives_of(experiment: Experiment) -> tuple[Objective, ...]:
    """Build the objectives of an experiment, in order."""
    return make_objectives([(o.task, o.metric, o.direction) for o in experiment.objectives])


def constraints_of(experiment: Experiment) -> tuple[Constraint, ...]:
    """Build the constraints of an experiment, one per bound."""
    sides: tuple[Literal["at_least", "at_most"], ...] = ("at_least", "at_most")
    return tuple(
        Constraint(config.task, config.metric, side, parse_bound(bound), str(bound))
        for config in experiment.constraints
        for side in sides
        if (bound := getattr(config, side)) is not None
    )


def costs_of(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """List what workers must measure beside scores, each once."""
    wanted: list[Objective | Constraint] = [*objectives, *constraints]
    return tuple(dict.fromkeys(m.metric for m in wanted if m.task == COST))
