"""CMA-ES as an Optuna sampler.

Never waits for a result: a generation ends at the first ask after ``popsize`` results have come
in; asks until then draw more points from the current distribution, and a result that comes later
counts in the generation in which it comes. Several objectives are scalarised by a random
preference per generation. An inactive gene counts as what was drawn for it.

Infeasible, pruned and failed trials rank last in their generation, in this order. Trials in the
space that somebody else chose (baselines, trials of another sampler) count, too, but pull no
further than a drawn point would. A trial that failed and was run again counts once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from optuna.samplers import BaseSampler
from pydantic import ConfigDict, Field

from evomerge.samplers.evolution import Evolution
from evomerge.samplers.joint import JointSampler
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem
from evomerge.samplers.replay import Replayed
from evomerge.samplers.unit_cube import UnitCube
from evomerge.schema import parse

__all__ = ["PYCMA", "PycmaOptions"]

_CORRELATION_TRIALS_PER_AXIS = 20  # below, a full covariance matrix is noise for most of the run


@dataclass(frozen=True)
class PycmaOptions:
    """Options of CMA-ES.

    Attributes:
        sigma0: First standard deviation, as a share of every gene's range.
        popsize: Results per generation; absent: 4 + 3 ln(axes), rounded down.
        restarts: How often a converged search starts again, each time with twice the popsize.
        diagonal: Learn a variance per axis only; absent: for fewer than 20 trials per axis.
        noise: Scores are noisy: twice the popsize, so that a generation's mean step averages over
            twice the trials. (No trial is evaluated again: that costs what a new one does.)
    """

    sigma0: Annotated[float, Field(gt=0, le=1)] = 1 / 6
    popsize: Annotated[int, Field(ge=4, le=100_000)] | None = None
    restarts: Annotated[int, Field(ge=0, le=1000)] = 9
    diagonal: bool | None = None
    noise: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")


def _resolve(options: Options, problem: SearchProblem) -> Options:
    chosen = parse(PycmaOptions, options)
    if chosen.diagonal is not None:
        return options
    n_axes = UnitCube(problem.space.searched).dimension
    return {**options, "diagonal": problem.n_trials < _CORRELATION_TRIALS_PER_AXIS * n_axes}


def _build(options: Options, problem: SearchProblem) -> BaseSampler:
    chosen = parse(PycmaOptions, _resolve(options, problem))

    def start() -> Evolution:
        return Evolution(
            problem.space,
            sigma0=chosen.sigma0,
            popsize=_popsize(chosen, problem),
            diagonal=bool(chosen.diagonal),
            restarts=chosen.restarts,
            seed=problem.seed,
            preference=problem.preference,
        )

    replayed = Replayed(start, problem.space, label="pycma", constrained=problem.constrained)
    return JointSampler(problem.space, replayed, seed=problem.seed)


def _popsize(chosen: PycmaOptions, problem: SearchProblem) -> int:
    n_axes = UnitCube(problem.space.searched).dimension
    popsize = chosen.popsize or 4 + math.floor(3 * math.log(max(n_axes, 1)))
    return 2 * popsize if chosen.noise else popsize


PYCMA = SamplerKind("one objective, numbers only, at least 10 trials per gene", _build, _resolve)
