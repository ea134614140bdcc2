"""What a sampler declares about itself, and what it is built for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from optuna.samplers import BaseSampler

from evomerge.arrays import FloatArray
from evomerge.samplers.gene_space import GeneSpace

__all__ = ["ItemScores", "Options", "SamplerKind", "SearchProblem"]

Options = Mapping[str, float | int | str | bool]
ItemScores = Callable[[int], tuple[FloatArray, ...] | None]


@dataclass(frozen=True)
class SearchProblem:
    """The search problem that a sampler is built for.

    Attributes:
        space: The genes.
        n_objectives: Objectives of the study, 1 or more.
        n_trials: Trials in total when the study is created; population sizes follow it.
        seed: The study's seed.
        constrained: Whether trials carry constraints: user attribute ``constraints``, a list of
            numbers, feasible if none is above 0.
        item_scores: From a finished trial's number to its score on every item (larger is better,
            NaN where it has none), one array per objective, the same items for every trial; empty
            for an objective without items, such as a cost. ``None`` if none are stored. Absent if
            the study keeps no item scores.
        sloped: Genes along which objectives may have slopes.
        sloped_objectives: Which objectives have; empty: none.
        preference: How much each objective counts in their sum; empty: they are traded off.
    """

    space: GeneSpace
    n_objectives: int
    n_trials: int
    seed: int
    constrained: bool = False
    item_scores: ItemScores | None = None
    sloped: frozenset[str] = frozenset()
    sloped_objectives: tuple[bool, ...] = ()
    preference: tuple[float, ...] = ()


def _as_they_are(options: Options, problem: SearchProblem) -> Options:
    return options


@dataclass(frozen=True)
class SamplerKind:
    """A sampler by name.

    Attributes:
        when: One line on when to use it.
        build: Checks options and builds the sampler. Raises ``ConfigError`` with one line per
            wrong option, ``SpaceError`` for a space that it cannot search.
        resolve: Adds the options that follow the budget, to be kept with the study: a larger
            budget later must not change the search. Raises as ``build`` does.
    """

    when: str
    build: Callable[[Options, SearchProblem], BaseSampler]
    resolve: Callable[[Options, SearchProblem], Options] = _as_they_are
