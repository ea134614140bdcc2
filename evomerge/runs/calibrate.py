"""Measures, before a search, what the objectives of an experiment can tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evomerge.analysis.calibration import Calibration, Measurement, advice, calibration
from evomerge.errors import EvaluationError
from evomerge.evaluation.scores import SMOOTH_METRICS, ItemScore, Scores
from evomerge.execution.batch import run_all
from evomerge.execution.costs import COST
from evomerge.execution.protocol import Executor, Job, Scored, WorkerSpec
from evomerge.recipe.recipe import Recipe
from evomerge.recipe.rules import sum_rule
from evomerge.runs.loaded import Loaded
from evomerge.runs.workers import on_device, start_executor
from evomerge.seeds import seed_for
from evomerge.space.baselines import baselines
from evomerge.space.protocol import ModelSet

__all__ = ["CalibratedObjective", "calibrate"]

_N_PERTURBED = 4
_PERTURBATION = 0.01  # relative standard deviation of each coefficient


@dataclass(frozen=True)
class CalibratedObjective:
    """One objective as measured before a search.

    Attributes:
        name: Its name.
        measured: Its metric.
        smooth: Smooth metrics of the same task, for comparison.
        advice: What to do with it, in one line.
    """

    name: str
    measured: Calibration
    smooth: tuple[Calibration, ...]
    advice: str


def calibrate(loaded: Loaded) -> tuple[CalibratedObjective, ...]:
    """Score base, experts, uniform average and slight changes of it on the search items.

    Args:
        loaded: A checked experiment; runs on its executor.

    Returns:
        One per objective, in order; costs, which no items are drawn for, are left out.

    Raises:
        EvaluationError: A model could not be scored.
    """
    models = {b.origin: b.recipe for b in baselines(loaded.space, loaded.models)}
    recipes = [*models.values(), *_perturbed(loaded.models)]
    objectives = [o for o in loaded.objectives if o.task != COST]
    tasks = frozenset(o.task for o in objectives)
    worker = _with_smooth(loaded.worker, tasks)
    worker = replace(worker, costs=(), gates=None, rungs=())
    execution = loaded.experiment.execution
    executor = start_executor(execution)
    try:
        executor.load(on_device(worker, execution))
        scores = _score(recipes, executor)
    finally:
        executor.close()
    scored = dict(zip(models, scores, strict=False))  # the perturbed come after the models
    perturbed = scores[len(models) :]
    return tuple(_objective(o.name, o.task, o.metric, scored, perturbed) for o in objectives)


def _with_smooth(worker: WorkerSpec, tasks: frozenset[str]) -> WorkerSpec:
    """Ask for the smooth metrics of tasks."""
    prompted = {
        split: tuple(replace(one, suite=replace(one.suite, smooth=tasks)) for one in suites)
        for split, suites in worker.prompted.items()
    }
    suites = tuple(replace(suite, smooth=tasks) for suite in worker.suites)
    return replace(worker, suites=suites, prompted=prompted)


def _perturbed(models: ModelSet) -> Iterator[Recipe]:
    """Yield uniform averages whose coefficients are off by about one percent."""
    names = tuple(models.experts)
    for i in range(_N_PERTURBED):
        draws = np.random.default_rng(seed_for(models.seed, "calibrate", i))
        factors = 1 + _PERTURBATION * draws.standard_normal(len(names))
        mix = {name: float(f) / len(names) for name, f in zip(names, factors, strict=True)}
        yield models.recipe((sum_rule(mix),))


def _score(recipes: Sequence[Recipe], executor: Executor) -> list[Scores]:
    found: dict[int, Scores] = {}
    for outcome in run_all(executor, itertools.starmap(Job, enumerate(recipes))):
        if not isinstance(outcome, Scored):
            why = getattr(outcome, "error", None) or getattr(outcome, "reason", "")
            raise EvaluationError(f"a parent or an average could not be scored: {why}")
        found[outcome.job.trial] = outcome.scores
    return [found[number] for number in sorted(found)]


def _objective(
    name: str, task: str, metric: str, scored: Mapping[str, Scores], perturbed: Sequence[Scores]
) -> CalibratedObjective:
    def measure(of: str) -> Calibration:
        measured = [_measurement(origin, task, of, scores) for origin, scores in scored.items()]
        return calibration(task, of, measured, [s.metrics[task][of].value for s in perturbed])

    known = next(iter(scored.values())).metrics[task]
    smooth = tuple(measure(m) for m in SMOOTH_METRICS if m in known and m != metric)
    measured = measure(metric)
    # A smooth metric is no news to an objective that is one.
    hints = () if metric in SMOOTH_METRICS else smooth
    return CalibratedObjective(name, measured, smooth, advice(measured, hints))


def _measurement(origin: str, task: str, metric: str, scores: Scores) -> Measurement:
    value = scores.metrics[task][metric]
    items = dict(_item_scores(scores.items, task, metric))
    return Measurement(origin, value.value, value.stderr, value.n, items)


def _item_scores(items: Sequence[ItemScore], task: str, metric: str) -> Iterator[tuple[int, float]]:
    """Yield (item, score); the smooth score of an item of choices is its ``gold_probability``."""
    for item in items:
        if item.task == task and item.metric == metric:
            yield item.item, item.score
        elif item.task == task and metric == "gold_probability" and item.smooth is not None:
            yield item.item, item.smooth
