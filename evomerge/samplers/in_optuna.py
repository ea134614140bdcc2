"""Optuna's own samplers, with defaults for searches of a few hundred trials.

None of them learns from failed trials. ``tpe`` counts pruned ones as bad; ``gp``, ``nsga2`` and
``nsga3`` ignore them. All but ``random`` rank infeasible trials behind feasible ones; ``gp``
models the constraints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from pydantic import ConfigDict, Field

from evomerge.optuna_internals import generation_key
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem
from evomerge.samplers.wrapped import InSpace
from evomerge.schema import parse

__all__ = ["GP", "NSGA2", "NSGA3", "RANDOM", "TPE"]

_Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class _NoOptions:
    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class _TpeOptions:
    n_startup_trials: Annotated[int, Field(ge=1, le=100_000)] = 10
    n_ei_candidates: Annotated[int, Field(ge=1, le=100_000)] = 24

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class _GpOptions:
    n_startup_trials: Annotated[int, Field(ge=1, le=100_000)] = 5

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class _NsgaOptions:
    population_size: Annotated[int, Field(ge=2, le=100_000)] | None = None
    crossover_prob: _Probability = 0.9
    mutation_prob: _Probability | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def population(self, n_trials: int) -> int:
        """Return the population size: a tenth of the budget, within 10 and 50, unless given."""
        return self.population_size or min(max(n_trials // 10, 10), 50)


def _in_space(
    factory: Callable[[int], BaseSampler], problem: SearchProblem, inherited_attr: str | None = None
) -> BaseSampler:
    return InSpace(
        factory,
        problem.space,
        seed=problem.seed,
        inherited_attr=inherited_attr,
        constrained=problem.constrained,
    )


def _random(options: Options, problem: SearchProblem) -> BaseSampler:
    parse(_NoOptions, options)
    return _in_space(RandomSampler, problem)


def _tpe(options: Options, problem: SearchProblem) -> BaseSampler:
    chosen = parse(_TpeOptions, options)

    def factory(seed: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=chosen.n_startup_trials,
            n_ei_candidates=chosen.n_ei_candidates,
            multivariate=True,
            constant_liar=True,  # trials that are still running repel the next one
            seed=seed,
        )

    return _in_space(factory, problem)


def _gp(options: Options, problem: SearchProblem) -> BaseSampler:
    chosen = parse(_GpOptions, options)

    def factory(seed: int) -> BaseSampler:
        return GPSampler(n_startup_trials=chosen.n_startup_trials, seed=seed)

    return _in_space(factory, problem)


def _nsga(
    algorithm: type[NSGAIISampler] | type[NSGAIIISampler], options: Options, problem: SearchProblem
) -> BaseSampler:
    chosen = parse(_NsgaOptions, options)

    def factory(seed: int) -> BaseSampler:
        return algorithm(
            population_size=chosen.population(problem.n_trials),
            crossover_prob=chosen.crossover_prob,
            mutation_prob=chosen.mutation_prob,
            seed=seed,
        )

    # Baselines and re-run trials carry no generation; this makes parents of them, too.
    generation = generation_key(algorithm)
    return _in_space(factory, problem, inherited_attr=generation)


def _nsga_resolve(options: Options, problem: SearchProblem) -> Options:
    chosen = parse(_NsgaOptions, options)
    return {**options, "population_size": chosen.population(problem.n_trials)}


def _nsga2(options: Options, problem: SearchProblem) -> BaseSampler:
    return _nsga(NSGAIISampler, options, problem)


def _nsga3(options: Options, problem: SearchProblem) -> BaseSampler:
    return _nsga(NSGAIIISampler, options, problem)


RANDOM = SamplerKind("a control: what luck alone finds", _random)
TPE = SamplerKind(
    "few genes and many trials, or any genes with conditions; asks in milliseconds", _tpe
)
GP = SamplerKind("at most 150 slow trials of at most 20 genes; an ask takes up to a second", _gp)
NSGA2 = SamplerKind(
    "2 or 3 objectives and thousands of trials: asks stay cheap", _nsga2, _nsga_resolve
)
NSGA3 = SamplerKind("4 objectives or more", _nsga3, _nsga_resolve)
