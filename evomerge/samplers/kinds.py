"""What a sampler declares about itself, and what it is built for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from optuna.samplers import BaseSampler

from evomerge.samplers.gene_space import GeneSpace

__all__ = ["Budget", "Options", "SamplerKind"]

Options = Mapping[str, float | int | str | bool]


@dataclass(frozen=True)
class Budget:
    """The search that a sampler is built for.

    Attributes:
        space: The genes.
        n_objectives: Objectives of the study, 1 or more.
        n_trials: Trials in total; population sizes follow it.
        seed: The study's seed.
    """

    space: GeneSpace
    n_objectives: int
    n_trials: int
    seed: int


@dataclass(frozen=True)
class SamplerKind:
    """A sampler by name.

    Attributes:
        when: One line on when to use it.
        build: Checks options and builds the sampler. Raises ``ConfigError`` with one line per
            wrong option, ``SpaceError`` for a space that it cannot search.
    """

    when: str
    build: Callable[[Options, Budget], BaseSampler]
