"""``greedy_soup``: average the best seeds, then move one gene at a time.

Infeasible trials are worse than any feasible one, by their violation; failed and pruned ones are
tried and no better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from pydantic import ConfigDict, Field

from evomerge.samplers.gene_space import GeneValue
from evomerge.samplers.joint import JointSampler
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem
from evomerge.samplers.results import Result, Trials, Tried
from evomerge.samplers.unit_cube import UnitCube, draw_uniform
from evomerge.schema import parse
from evomerge.seeds import seed_for

__all__ = ["GREEDY_SOUP", "GreedySoup"]


@dataclass(frozen=True)
class _SoupOptions:
    """Options of ``greedy_soup``.

    Attributes:
        step: First move of a gene, as a share of its range.
        min_step: Moves are halved until they would be smaller than this.
    """

    step: Annotated[float, Field(gt=0, le=1)] = 0.25
    min_step: Annotated[float, Field(gt=0, le=1)] = 0.01

    __pydantic_config__ = ConfigDict(extra="forbid")


class GreedySoup:
    """Proposes the next average of seeds, then the next move of one gene of the best trial.

    Seeds are the queued trials in the space: parents and users' recipes. The best one is the
    first soup; each next one joins it if the average of their params has a better mean objective.
    A move that helps is where moves go on from, with the same step; a round of moves of which
    none helps halves it. What is running counts as if it did not help, so no worker waits.

    Args:
        problem: What is searched.
        options: Sizes of moves.

    Source:
        Wortsman et al. 2022, "Model soups", arXiv:2203.05482, recipe 1; moves: Hooke and Jeeves
        1961, "Direct search".
    """

    def __init__(self, problem: SearchProblem, options: _SoupOptions) -> None:
        self._problem, self._options = problem, options
        self._space, self._genes = problem.space, problem.space.searched
        self._cube = UnitCube(self._genes)
        self._trials = Trials(problem.space, constrained=problem.constrained)

    def __call__(self, study: Study, trial: FrozenTrial) -> dict[str, GeneValue]:
        """Propose the params of a trial."""
        results = self._trials.finished(study)
        tried = Tried([*(r.active for r in results), *self._trials.running(study)], self._space)
        proposals = chain(self._soups(results), self._moves(results))
        found = next((p for p in proposals if p not in tried), None)
        seed = seed_for(self._problem.seed, "uniform", trial.number)
        return draw_uniform(self._genes, seed) if found is None else found

    def _soups(self, results: Sequence[Result]) -> Iterator[dict[str, GeneValue]]:
        seeds = sorted((r for r in results if r.queued), key=_badness)
        soup, best = seeds[:1], _badness(seeds[0]) if seeds else ()
        for seed in seeds[1:]:
            mixed = self._average([*soup, seed])
            yield mixed
            known = [_badness(r) for r in results if mixed in Tried([r.active], self._space)]
            if known and min(known) < best:
                soup, best = [*soup, seed], min(known)

    def _average(self, soup: Sequence[Result]) -> dict[str, GeneValue]:
        points = np.array([self._cube.encode(r.params) for r in soup])
        return self._cube.decode(points.mean(axis=0))

    def _moves(self, results: Sequence[Result]) -> Iterator[dict[str, GeneValue]]:
        centre, step = self._centre(results)
        names = list(self._genes)
        order = np.random.default_rng(seed_for(self._problem.seed, "order", len(names)))
        order.shuffle(names)
        while step >= self._options.min_step:
            for name in names:
                for value in _neighbours(self._genes[name], name, centre[name], step):
                    yield {**centre, name: value}
            step /= 2

    def _centre(self, results: Sequence[Result]) -> tuple[dict[str, GeneValue], float]:
        """Find the best trial, and by how much it moved from the best before it."""
        centre, best = {n: self._space.defaults[n] for n in self._genes}, (math.inf, math.inf)
        step = self._options.step
        for result in results:
            if _badness(result) < best:
                here = {n: result.params[n] for n in self._genes}
                moved = np.abs(self._cube.encode(here) - self._cube.encode(centre)).max()
                is_move = not result.queued and best < (math.inf, math.inf)
                step = min(float(moved), self._options.step) if is_move else self._options.step
                centre, best = here, _badness(result)
        return centre, step


def _badness(result: Result) -> tuple[float, float]:
    if result.losses is None:
        return math.inf, math.inf
    return result.violation, sum(result.losses)


def _neighbours(
    distribution: BaseDistribution, name: str, value: GeneValue, step: float
) -> Iterator[GeneValue]:
    """Yield other values of a gene: a step up and down, or every other choice."""
    if isinstance(distribution, CategoricalDistribution):
        yield from (choice for choice in distribution.choices if choice != value)  # type: ignore[misc]
        return
    axis = UnitCube({name: distribution})
    here = axis.encode({name: value})
    for there in (here + step, here - step):
        yield axis.decode(np.clip(there, 0.0, 1.0))[name]


def _build(options: Options, problem: SearchProblem) -> BaseSampler:
    soup = GreedySoup(problem, parse(_SoupOptions, options))
    return JointSampler(problem.space, soup, seed=problem.seed)


GREEDY_SOUP = SamplerKind("a few trials per gene, the mean objective, good parents", _build)
