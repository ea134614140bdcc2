"""``m2n2``: children of parents that are good at different items.

Infeasible trials leave the archive first, the most violating one before the others; failed and
pruned ones never enter it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from pydantic import ConfigDict, Field

from evomerge.arrays import FloatArray
from evomerge.samplers.gene_space import GeneValue
from evomerge.samplers.joint import JointSampler
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem
from evomerge.samplers.results import Result, Trials, Tried
from evomerge.samplers.unit_cube import UnitCube, draw_uniform
from evomerge.schema import parse
from evomerge.seeds import seed_for

__all__ = ["M2N2", "Niches", "competition"]

_ATTEMPTS = 10  # to make a child that is not known yet
_SPREAD = 0.05  # of a mutation, as a share of an axis


@dataclass(frozen=True)
class _M2n2Options:
    """Options of ``m2n2``.

    Attributes:
        archive_size: Trials that may become parents.
        alpha: How much the good ones share what an item gives; 0 is a plain genetic algorithm.
    """

    archive_size: Annotated[int, Field(ge=2, le=100_000)] = 20
    alpha: Annotated[float, Field(ge=0)] = 1.0

    __pydantic_config__ = ConfigDict(extra="forbid")


class Niches:
    """Proposes children of an archive in which trials compete for items.

    Everything that tells trials apart is a resource: an item gives 1 to those who are good at it; a
    cost, or another objective without items, gives as much as all items of an objective do on
    average, most of it to the cheapest. The archive is replayed from the store: every result joins
    it, and the one that gets least leaves. Parents are crossed at a split point in depth: below it
    the child is nearer to one, above it to the other.

    Args:
        problem: What is searched.
        options: Size of the archive and strength of the competition.

    Source:
        Abrantes et al. 2025, "Competition and Attraction Improve Model Fusion", GECCO,
        arXiv:2508.16204; there parents are checkpoints, here their recipes' params.
    """

    def __init__(self, problem: SearchProblem, options: _M2n2Options) -> None:
        self._problem, self._options = problem, options
        self._space, self._cube = problem.space, UnitCube(problem.space.searched)
        self._trials = Trials(problem.space, constrained=problem.constrained)

    def __call__(self, study: Study, trial: FrozenTrial) -> dict[str, GeneValue]:
        """Propose the params of a trial."""
        results = self._trials.finished(study)
        scored = [r for r in results if r.losses is not None and not r.pruned]  # on all items
        archive = self._archive(scored)
        seed = seed_for(self._problem.seed, "child", trial.number)
        if len(archive) < self._options.archive_size:
            return draw_uniform(self._space.searched, seed)
        rng = np.random.default_rng(seed)
        tried = Tried([*(r.active for r in results), *self._trials.running(study)], self._space)
        for _ in range(_ATTEMPTS):
            child = self._child(archive, rng)
            if child not in tried:
                break
        return child

    def _archive(self, results: Sequence[Result]) -> list[Result]:
        archive: list[Result] = []
        resources = self._resources(results)
        for result in results:
            archive.append(result)
            if len(archive) > self._options.archive_size:
                fitness = self._shares(resources, archive).sum(axis=1)
                order = [(-r.violation, f) for r, f in zip(archive, fitness, strict=True)]
                del archive[order.index(min(order))]
        return archive

    def _child(self, archive: Sequence[Result], rng: np.random.Generator) -> dict[str, GeneValue]:
        shares = self._shares(self._resources(archive), archive)
        one = _draw(shares.sum(axis=1), rng)
        other = _draw(np.maximum(shares - shares[one], 0.0).sum(axis=1), rng)
        a, b = (self._cube.encode(archive[i].params) for i in (one, other))
        near = np.where(self._is_below_split(rng), *_split_shares(rng))
        child = near * a + (1 - near) * b
        mutates = rng.random(child.shape) < 1 / len(child)
        return self._cube.decode(
            np.clip(child + mutates * rng.normal(0.0, _SPREAD, child.shape), 0.0, 1.0)
        )

    def _is_below_split(self, rng: np.random.Generator) -> FloatArray:
        """Tell each axis whether it lies below a random depth; genes without one draw theirs."""
        depths = np.array([self._space.depths.get(name, np.nan) for name in self._cube.names])
        deepest = np.nanmax(depths, initial=0.0) + 1.0
        drawn = dict(zip(self._space.searched, rng.random(len(self._space.searched)), strict=True))
        free = np.array([drawn[name] for name in self._cube.names]) * deepest
        return np.asarray(np.where(np.isnan(depths), free, depths) < rng.uniform(0.0, deepest))

    def _shares(self, resources: _Resources, archive: Sequence[Result]) -> FloatArray:
        scores = np.array([resources.scores[r.number] for r in archive])
        return competition(scores, self._options.alpha) * resources.capacity

    def _resources(self, results: Sequence[Result]) -> _Resources:
        read = self._problem.item_scores
        rows = [] if read is None else [row for r in results if (row := read(r.number)) is not None]
        values = -np.array([r.losses for r in results], dtype=np.float64)
        if not rows or len(rows) < len(results):  # items that not all were scored on tell nothing
            columns, capacity = values, np.ones(self._problem.n_objectives)
        else:
            items = [np.array(of_one, dtype=np.float64) for of_one in zip(*rows, strict=True)]
            columns, capacity = _joined(items, values)
        numbers = [r.number for r in results]
        return _Resources(dict(zip(numbers, _to_unit(columns), strict=True)), capacity)


@dataclass(frozen=True)
class _Resources:
    """What trials compete for.

    Attributes:
        scores: By trial number: (m,), how good it is at each of m resources, in [0, 1].
        capacity: (m,), how much each gives in all.
    """

    scores: Mapping[int, FloatArray]
    capacity: FloatArray


def _joined(items: Sequence[FloatArray], values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Put items of all objectives side by side; objectives without any count as one resource.

    Args:
        items: Per objective (n, items), of n trials; at least one objective has items.
        values: (n, objectives), larger is better.
    """
    typical = float(np.mean([part.shape[1] for part in items if part.size]))
    columns = [part if part.size else values[:, [i]] for i, part in enumerate(items)]
    capacity = [np.full(part.shape[1], 1.0) if part.size else np.array([typical]) for part in items]
    return np.hstack(columns), np.concatenate(capacity)


def competition(scores: FloatArray, alpha: float) -> FloatArray:
    """Share what each item gives among those who are good at it.

    Args:
        scores: (n, m), of n trials on m items, in [0, 1].
        alpha: Strength; 0 leaves scores as they are.

    Returns:
        (n, m), the share each trial gets of each item. Its fitness is the sum over items, each
        times what the item gives in all.

    Source:
        arXiv:2508.16204, equation 3.
    """
    demand = scores.sum(axis=0)
    return np.asarray(scores / np.where(demand > 0, demand, 1.0) ** alpha)


def _to_unit(rows: FloatArray) -> FloatArray:
    """Scale columns to [0, 1]; a missing score is an average one."""
    if not len(rows):
        return rows
    seen = ~np.isnan(rows)
    low = np.where(seen, rows, np.inf).min(axis=0)
    high = np.where(seen, rows, -np.inf).max(axis=0)
    unit = (rows - low) / np.where(high > low, high - low, 1.0)
    counts = np.maximum(seen.sum(axis=0), 1)
    average = np.where(seen, unit, 0.0).sum(axis=0) / counts
    return np.asarray(np.where(seen, unit, average))


def _draw(chances: FloatArray, rng: np.random.Generator) -> int:
    total = chances.sum()
    even = np.full(len(chances), 1 / len(chances))
    return int(rng.choice(len(chances), p=chances / total if total > 0 else even))


def _split_shares(rng: np.random.Generator) -> tuple[float, float]:
    share = float(rng.random())
    return share, 1 - share


def _build(options: Options, problem: SearchProblem) -> BaseSampler:
    niches = Niches(problem, parse(_M2n2Options, options))
    return JointSampler(problem.space, niches, seed=problem.seed)


M2N2 = SamplerKind("parents that are good at different items, hundreds of trials", _build)
