"""CMA-ES for genes of any kind as Optuna samplers: ``catcma`` and ``comocma``.

Neither waits for a result: asks beyond a generation draw more points from its distribution.
``catcma`` ranks infeasible, pruned and failed trials last in their generation, in this order, and
counts trials that somebody else chose (baselines) as points no further off than drawn ones.
``comocma`` counts infeasible, pruned and failed trials as worse than any seen so far, and leaves
out trials that somebody else chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from optuna.samplers import BaseSampler
from pydantic import ConfigDict, Field

from evomerge.errors import ConfigError
from evomerge.samplers.joint import JointSampler
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem
from evomerge.samplers.mixed import CatEvolution, ComoEvolution, default_popsize
from evomerge.samplers.replay import Replayed
from evomerge.schema import parse

__all__ = ["CATCMA", "COMOCMA"]

_GENERATIONS = 10  # moves that a kernel needs to get somewhere
_MOST_KERNELS = 10  # the literature's number

_Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class _CatcmaOptions:
    """Options of ``catcma``.

    Attributes:
        sigma0: First standard deviation, as a share of every numeric gene's range.
        popsize: Results per generation; absent: 4 + 3 ln(genes), rounded down.
    """

    sigma0: _Share = 1 / 6
    popsize: Annotated[int, Field(ge=4, le=100_000)] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class _ComocmaOptions:
    """Options of ``comocma``.

    Attributes:
        sigma0: First standard deviation, as a share of every numeric gene's range.
        kernels: Points of the front that move; absent: as many as the budget can move 10 times,
            up to 10.
    """

    sigma0: _Share = 1 / 6
    kernels: Annotated[int, Field(ge=1, le=1000)] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


def _catcma(options: Options, problem: SearchProblem) -> BaseSampler:
    chosen = parse(_CatcmaOptions, options)

    def start() -> CatEvolution:
        popsize = chosen.popsize or default_popsize(len(problem.space.searched))
        return CatEvolution(
            problem.space,
            sigma0=chosen.sigma0,
            popsize=popsize,
            seed=problem.seed,
            preference=problem.preference,
        )

    replayed = Replayed(start, problem.space, label="catcma", constrained=problem.constrained)
    return JointSampler(problem.space, replayed, seed=problem.seed)


def _resolve_kernels(options: Options, problem: SearchProblem) -> Options:
    chosen = parse(_ComocmaOptions, options)
    if problem.n_objectives != 2:
        raise ConfigError(f"comocma is for 2 objectives, got {problem.n_objectives}")
    if chosen.kernels is not None or not problem.space.searched:
        return options
    popsize = default_popsize(len(problem.space.searched))
    affordable = problem.n_trials // (_GENERATIONS * popsize)
    return {**options, "kernels": min(max(affordable, 1), _MOST_KERNELS)}


def _comocma(options: Options, problem: SearchProblem) -> BaseSampler:
    chosen = parse(_ComocmaOptions, _resolve_kernels(options, problem))

    def start() -> ComoEvolution:
        return ComoEvolution(
            problem.space, sigma0=chosen.sigma0, kernels=chosen.kernels or 1, seed=problem.seed
        )

    replayed = Replayed(start, problem.space, label="comocma", constrained=problem.constrained)
    return JointSampler(problem.space, replayed, seed=problem.seed)


CATCMA = SamplerKind(
    "the all-rounder: genes of any kind, 1 to 3 objectives, 50 trials or more", _catcma
)
COMOCMA = SamplerKind(
    "2 objectives, genes of any kind, a thousand trials or more", _comocma, _resolve_kernels
)
