"""What paths are worth on the embedded models: the best path against every source, and hybrid
against parameter spaces at equal evaluations. Everything is chosen on the items of ``search`` and
``validation``; the printed figures are of ``test``.

    python -m tests.benchmarks.dataflow [--trials 60] [--seeds 3] [--limit 50] [--arms slots ...]

A hybrid space that beats its own parameter space on one task (the preset ``merged_or_base``):

    python -m tests.benchmarks.dataflow --tasks zoo_facts --metric gold_probability --trials 100 \\
        --seeds 5 --limit 150 --arms "wide parameters" "merged or base" "wide, grouped"
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch

from evomerge.config.presets import Presets
from evomerge.evaluation.scores import SMOOTH_METRICS, Scores
from evomerge.execution.protocol import Job, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.recipe.recipe import Recipe
from evomerge.runs.parts import build_space, load_suites
from evomerge.samplers import GeneSpace, SearchProblem, build_sampler
from evomerge.space.baselines import baselines
from evomerge.space.protocol import ModelSet, SearchSpace

MODELS = ModelSet(
    "zoo:base", {name: f"zoo:{name}" for name in ("math", "list", "facts")}, n_layers=6
)
_GLOBAL = {"method": "task_arithmetic", "genes": {"coefficient": {"range": [0.0, 1.2]}}}
# Room for what a merge needs that leaves layers to the base: with 1.2 it ends at the bound.
_WIDE = {"method": "task_arithmetic", "genes": {"coefficient": {"range": [0.0, 1.5]}}}
_PATH = {"encoding": "slots", "scale": {"range": [0.7, 1.4]}}
_SOURCES = {"sources": ["math", "list", "facts", "base"]}
_GROUPS = {**_GLOBAL, "depth": {"groups": 3}}
_SINGLE = {"encoding": {"name": "slots", "pairs": False}, "scale": None}
_NO_SCALES = {**_PATH, "scale": None}
_EITHER = ["merged", "base"]
_OR_BASE = {"encoding": {"name": "slots", "choices": _EITHER}, "sources": _EITHER, "scale": None}
ARMS: Mapping[str, dict[str, Any]] = {
    "slots": {"kind": "dataflow", **_PATH, **_SOURCES},
    "slots, no scales": {"kind": "dataflow", **_NO_SCALES, **_SOURCES},
    "slots, any owner": {"kind": "dataflow", **_PATH, **_SOURCES, "owner": _SOURCES["sources"]},
    "permutation": {"kind": "dataflow", **_PATH, "encoding": "permutation"},
    "threshold": {"kind": "dataflow", **_PATH, "encoding": {"name": "threshold", "repeats": 2}},
    "slices": {"kind": "dataflow", **_PATH, "encoding": "slices"},
    "global parameters": _GLOBAL,
    "global hybrid": {"kind": "hybrid", "merge": _GLOBAL, "path": _NO_SCALES},
    "wide parameters": _WIDE,
    "merged or base": {"kind": "hybrid", "merge": _WIDE, "path": _OR_BASE},
    "wide, grouped": {**_WIDE, "depth": {"groups": 3}},
    "grouped parameters": _GROUPS,
    "grouped hybrid": {"kind": "hybrid", "merge": _GROUPS, "path": _NO_SCALES},
    "narrow hybrid": {"kind": "hybrid", "merge": _GROUPS, "path": _SINGLE},
}
_FINALISTS = 5


class Bench:
    """Models, and their tasks with few items to search on and all to report.

    Args:
        tasks: Which tasks; the objective is the mean over them.
        limit: Items of each task in ``search``.
        metric: What is searched; ``None`` takes each task's own, which is printed either way.
    """

    def __init__(self, tasks: Sequence[str], limit: int, metric: str | None = None) -> None:
        (suite,) = load_suites(["zoo"], Presets(), Path.cwd())
        smooth = frozenset(tasks if metric in SMOOTH_METRICS else ())
        suite = replace(suite, tasks=tuple(tasks), smooth=smooth)
        self._metric = metric
        self._few = Worker(_spec(replace(suite, limit=limit)))
        self._all = Worker(_spec(suite))

    def search(self, recipe: Recipe) -> float:
        """Return the objective on the items that are searched."""
        return self.objective(_scored(self._few, recipe, "search"))

    def objective(self, scores: Scores) -> float:
        """Average what is searched over the tasks; more is better."""
        sign = -1 if SMOOTH_METRICS.get(self._metric or "") == "minimize" else 1
        return sign * mean(scores, self._metric)

    def held_out(self, recipe: Recipe, split: str) -> Scores:
        """Score all items of another split."""
        return _scored(self._all, recipe, split)

    def best(self, space: SearchSpace, *, n_trials: int, sampler: str, seed: int) -> Recipe:
        """Search, and choose among the best few on ``validation``."""
        genes = GeneSpace(space.distributions, space.defaults, space.depths)
        chosen = build_sampler(
            sampler, {}, SearchProblem(space=genes, n_objectives=1, n_trials=n_trials, seed=seed)
        )
        study = optuna.create_study(direction="maximize", sampler=chosen)
        for baseline in baselines(space, MODELS):
            if baseline.params is not None:
                study.enqueue_trial(dict(baseline.params))
        recipes = []
        for _ in range(n_trials):
            trial = study.ask()
            recipes.append(space.recipe(space.suggest(trial)))
            study.tell(trial, self.search(recipes[-1]))
        ranked = sorted(study.trials, key=lambda trial: trial.value or 0.0, reverse=True)
        finalists = [recipes[trial.number] for trial in ranked[:_FINALISTS]]
        return max(finalists, key=lambda r: self.objective(self.held_out(r, "validation")))


def mean(scores: Scores, metric: str | None = None) -> float:
    """Average a metric, or the tasks' first ones."""
    return statistics.fmean(m[metric or next(iter(m))].value for m in scores.metrics.values())


def difference(one: Scores, other: Scores) -> tuple[float, float]:
    """Compare two models on the same items: mean difference and its standard error."""
    by_task: dict[str, list[float]] = {}
    for a, b in zip(one.items, other.items, strict=True):
        assert (a.task, a.item, a.metric) == (b.task, b.item, b.metric)
        if a.metric == next(iter(one.metrics[a.task])):
            by_task.setdefault(a.task, []).append(a.score - b.score)
    variances = [statistics.variance(d) / len(d) for d in by_task.values()]
    average = statistics.fmean(map(statistics.fmean, by_task.values()))
    return average, math.sqrt(sum(variances)) / len(variances)


def main() -> None:
    """Print every source, then every arm beside the best source and beside the first arm."""
    options = _options()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    bench = Bench(options.tasks, options.limit, options.metric)
    print(f"test, mean of {', '.join(options.tasks)}; {options.trials} trials, {options.sampler}")
    best, scores = _print_sources(bench)
    found: dict[str, list[Scores]] = {}
    for arm in options.arms:
        found[arm] = []
        for seed in range(options.seeds):
            space = build_space(ARMS[arm], MODELS)
            recipe = bench.best(space, n_trials=options.trials, sampler=options.sampler, seed=seed)
            found[arm].append(bench.held_out(recipe, "test"))
            gain, error = difference(found[arm][-1], scores)
            path = " ".join(f"{h.source}.{h.layer}*{h.scale:.2f}" for h in recipe.path)
            text = f"{gain:+.3f} ± {error:.3f} to {best}"
            print(
                f"  {arm:<18} seed {seed}: {mean(found[arm][-1]):.3f}, {text}  {path}", flush=True
            )
        for metric in dict.fromkeys((None, options.metric)):
            first = [mean(each, metric) for each in found[options.arms[0]]]
            _print_arm(f"{arm:<18} {metric or ''}", [mean(s, metric) for s in found[arm]], first)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--metric", default=None)
    parser.add_argument("--tasks", nargs="+", default=["zoo_math", "zoo_list", "zoo_facts"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    return parser.parse_args()


def _print_sources(bench: Bench) -> tuple[str, Scores]:
    """Print every source; return the best."""
    source_of = {
        b.origin: bench.held_out(b.recipe, "test")
        for b in baselines(build_space(_GLOBAL, MODELS), MODELS)
    }
    for name, scores in source_of.items():
        print(f"  {name:<18} {mean(scores):.3f}", flush=True)
    del source_of["uniform"]
    best = max(source_of, key=lambda name: mean(source_of[name]))
    return best, source_of[best]


def _print_arm(name: str, values: Sequence[float], first: Sequence[float]) -> None:
    """Print an average over seeds, and what it gains on the first arm, seed by seed."""
    gains = [one - other for one, other in zip(values, first, strict=True)]
    print(f"  {name} {_over_seeds(values)} over seeds; gain {_over_seeds(gains)}", flush=True)


def _over_seeds(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.4f} ± {error:.4f}"


def _spec(suite: Any) -> WorkerSpec:
    return WorkerSpec(MODELS.base, MODELS.experts, (suite,))


def _scored(worker: Worker, recipe: Recipe, split: str) -> Scores:
    outcome = worker.run(Job(0, recipe, split))
    if not isinstance(outcome, Scored):
        raise RuntimeError(outcome)
    return outcome.scores


if __name__ == "__main__":
    main()
