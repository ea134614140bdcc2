"""``map``: quadratic models of the objectives, searched at no cost; trials go to their front.

Failed and pruned trials are left out of the models; what was predicted of trials that were dropped
from races counts the less, the less sure it is. Constraints are modelled by how much they are
violated: a point that the model sees as infeasible ranks behind those it does not.
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
from evomerge.samplers.genetic import nsga2, ranks
from evomerge.samplers.joint import JointSampler
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem
from evomerge.samplers.odds import are_shares, log_odds, steepness
from evomerge.samplers.results import Result, Trials, Tried
from evomerge.samplers.scalarise import draw_preference, tchebycheff
from evomerge.samplers.surrogate import Surrogate, fit_surrogates
from evomerge.samplers.unit_cube import UnitCube, draw_uniform
from evomerge.schema import parse
from evomerge.seeds import seed_for

__all__ = ["MAP", "AmortisedFront"]

_POPULATION = 64
_GENERATIONS = 25
_MOST_POINTS = 400  # that a model is fitted to: the best ones; beyond, an ask takes seconds


@dataclass(frozen=True)
class _MapOptions:
    """Options of ``map``.

    Attributes:
        n_startup_trials: Random trials before the first model.
    """

    n_startup_trials: Annotated[int, Field(ge=2, le=100_000)] = 10

    __pydantic_config__ = ConfigDict(extra="forbid")


class AmortisedFront:
    """Proposes points of the front that the models of all trials so far predict.

    Every ask searches the whole front, as optimistic as the models are unsure (by a random share
    of their standard deviation, so that asks differ), and takes the point that suits a random
    preference best.

    Args:
        problem: What is searched.
        n_startup: Results before the first model.

    Source:
        Li et al. 2024, arXiv:2406.07529.
    """

    def __init__(self, problem: SearchProblem, *, n_startup: int) -> None:
        self._problem, self._n_startup = problem, n_startup
        self._space, self._cube = problem.space, UnitCube(problem.space.searched)
        self._trials = Trials(problem.space, constrained=problem.constrained)

    def __call__(self, study: Study, trial: FrozenTrial) -> dict[str, GeneValue]:
        """Propose the params of a trial."""
        results = self._trials.finished(study)
        scored = [r for r in results if r.losses is not None]
        if len(scored) < self._n_startup:
            return self._uniform(trial.number)
        waiting = self._trials.running(study)
        unknown = [self._space.complete(active) for active in waiting] + _unscored(results)
        tried = Tried([*waiting, *(r.active for r in results)], self._space)
        front = self._by_preference(_best(scored), self._encode(unknown), trial.number)
        return next((p for p in front if p not in tried), self._uniform(trial.number))

    def _by_preference(
        self, scored: Sequence[Result], unknown: FloatArray, number: int
    ) -> list[dict[str, GeneValue]]:
        """List the params of the predicted front, the preferred ones first."""
        points = self._encode([r.params for r in scored])
        losses = np.array([r.losses for r in scored])
        values = np.column_stack([_standardised(_unbounded(column)) for column in losses.T])
        variances = _variances(losses, [r.stderr for r in scored])
        violations = np.array([r.violation for r in scored])
        rng = np.random.default_rng(seed_for(self._problem.seed, "front", number))
        optimism = np.abs(rng.standard_normal(values.shape[1]))
        models = fit_surrogates(points, values, unknown, variances)
        promise = _Promise(self._cube, models, points, violations, unknown, optimism)
        start = _first_population(points, values, violations, rng)
        found, predicted = nsga2(promise, start, rng, generations=_GENERATIONS)
        preference = draw_preference(self._problem.seed, number, values.shape[1])
        order = np.argsort(tchebycheff(predicted, values, preference), kind="stable")
        return [self._cube.decode(point) for point in found[order]]

    def _encode(self, params: Sequence[Mapping[str, GeneValue]]) -> FloatArray:
        rows = [self._cube.encode(p) for p in params]
        return self._cube.snap(np.array(rows).reshape(len(rows), self._cube.dimension))

    def _uniform(self, number: int) -> dict[str, GeneValue]:
        return draw_uniform(self._space.searched, seed_for(self._problem.seed, "uniform", number))


class _Promise:
    """What the models promise at points of the unit cube, for ``nsga2``."""

    def __init__(
        self,
        cube: UnitCube,
        models: tuple[Surrogate, ...],
        points: FloatArray,
        violations: FloatArray,
        unknown: FloatArray,
        optimism: FloatArray,
    ) -> None:
        self._cube, self._optimism = cube, optimism
        self._models = models
        self._excess = None
        if (violations > 0).any():
            centre, spread = violations.mean(), violations.std() or 1.0
            self._feasible = -centre / spread
            scaled = (violations - centre) / spread
            (self._excess,) = fit_surrogates(points, scaled[:, None], unknown)

    def __call__(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        snapped = self._cube.snap(points)
        promised = [model.predict(snapped) for model in self._models]
        losses = [m - o * sd for (m, sd), o in zip(promised, self._optimism, strict=True)]
        if self._excess is None:
            return np.column_stack(losses), np.zeros(len(points))
        excess, _ = self._excess.predict(snapped)
        return np.column_stack(losses), np.maximum(excess - self._feasible, 0.0)


def _best(scored: Sequence[Result]) -> Sequence[Result]:
    if len(scored) <= _MOST_POINTS:
        return scored
    losses, violations = np.array([r.losses for r in scored]), [r.violation for r in scored]
    rank = ranks(losses, np.array(violations))
    return [scored[i] for i in np.sort(np.argsort(rank, kind="stable")[:_MOST_POINTS])]


def _unscored(results: Sequence[Result]) -> list[Mapping[str, GeneValue]]:
    """List what failed or was pruned: there is nothing to learn there, as where trials run."""
    return [r.params for r in results if r.losses is None]


def _unbounded(losses: FloatArray) -> FloatArray:
    return log_odds(losses) if are_shares(losses) else losses


def _variances(losses: FloatArray, stderr: Sequence[Sequence[float] | None]) -> FloatArray:
    """Return the (n, k) variances of predicted losses, as `_unbounded` and `_standardised`."""
    nothing = [0.0] * losses.shape[1]
    errors = np.array([nothing if row is None else row for row in stderr])
    for i, column in enumerate(losses.T):
        if are_shares(column):
            errors[:, i] *= steepness(column)
        errors[:, i] /= _unbounded(column).std() or 1.0
    return np.asarray(errors**2)


def _standardised(values: FloatArray) -> FloatArray:
    return np.asarray((values - values.mean()) / (values.std() or 1.0))


def _first_population(
    points: FloatArray, values: FloatArray, violations: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return the best points known, and random ones."""
    best = np.argsort(ranks(values, violations), kind="stable")[: _POPULATION // 2]
    return np.vstack([points[best], rng.random((_POPULATION - len(best), points.shape[1]))])


def _build(options: Options, problem: SearchProblem) -> BaseSampler:
    chosen = parse(_MapOptions, options)
    front = AmortisedFront(problem, n_startup=chosen.n_startup_trials)
    return JointSampler(problem.space, front, seed=problem.seed)


MAP = SamplerKind("2 or 3 objectives that are smooth in the genes, 30 to 500 trials", _build)
