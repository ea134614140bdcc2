"""``make bench-methods``: which methods help on the embedded models, on items no search has seen.

``python -m tests.benchmarks.methods [--seeds N] [--trials N] [--limit N] [--methods NAME,…]``.
Every method of the space ``every_method`` gets the same draws of its genes and as many evaluations;
the one with the best mean on the items of ``search`` is scored on those of ``test``. A method and
seed is kept in ``runs/benchmarks/methods.jsonl`` as it ends, and not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.execution.protocol import Job
from evomerge.execution.worker import Worker
from evomerge.recipe.recipe import Recipe
from evomerge.runs.loaded import Loaded
from evomerge.runs.observed import with_prompts
from evomerge.seeds import seed_for
from evomerge.space.protocol import Params, SearchSpace
from evomerge.study.folder import StudyFolder
from tests.benchmarks.readme import write_readme
from tests.benchmarks.results import Row, keep, latest, markdown
from tests.benchmarks.searches.methods import objective_values
from tests.benchmarks.searches.pooled import EMBEDDED
from tests.benchmarks.studies import load_quickstart

__all__ = ["draws", "table"]

_SPACE, _REFERENCE = "every_method", "task_arithmetic"
_DOCS = Path("docs/methods.md")
_COLUMNS = ("method", "seeds", "search", "test", "± over seeds", "against task arithmetic", "s")


def main() -> None:
    """Run what is missing, then print."""
    options = _options()
    parts = _parts(options.limit)
    names = _methods(parts)
    budget = _Budget(options.trials, options.limit)
    if not options.tables:
        bench = _Bench(parts, budget)
        for seed in range(1, options.seeds + 1):
            for name in options.methods.split(",") if options.methods else names:
                bench.run(name, seed)
    found = table(_rows(names, options.seeds, budget))
    print(found)
    if options.write_docs:
        write_readme({"methods": found}, _DOCS)


@dataclass(frozen=True)
class _Budget:
    """What each method and seed may spend.

    Attributes:
        trials: Evaluations.
        limit: Items per task and split; ``None``: all.
    """

    trials: int
    limit: int | None

    def key(self, method: str, seed: int) -> str:
        """Name a row."""
        return f"{method} {seed} {self.trials} {self.limit or 'all'}"


class _Bench:
    """Searches one method after the other with one worker."""

    def __init__(self, parts: Loaded, budget: _Budget) -> None:
        self._parts, self._budget, self._worker = parts, budget, Worker(parts.worker)
        self._number = 0

    def run(self, method: str, seed: int) -> None:
        """Search, judge and keep, unless it is kept."""
        key = self._budget.key(method, seed)
        if latest("methods", [key]):
            return
        start = time.perf_counter()
        space = self._parts.space
        recipes = [space.recipe(p) for p in draws(space, method, self._budget.trials, seed)]
        means = [self._mean(recipe, "search") for recipe in recipes]
        best = int(np.argmax(means))
        row = {"search": means[best], "test": self._mean(recipes[best], "test")}
        row["seconds"] = time.perf_counter() - start
        keep("methods", {"method": key, "name": method, "seed": seed, **row})
        print(f"{key}: {row['test']:.3f} in {row['seconds']:.0f} s", flush=True)

    def _mean(self, recipe: Recipe, split: str) -> float:
        """Mean of the objectives; a merge that fails is worth nothing."""
        self._number += 1
        outcome = self._worker.run(Job(self._number, recipe, split=split))
        return float(np.mean(objective_values(outcome, self._parts) or (0.0,)))


def draws(space: SearchSpace, method: str, n: int, seed: int) -> Iterator[Params]:
    """Draw genes for one method: the space's defaults, then uniform ones, alike for all methods."""
    distributions, defaults = space.distributions, space.defaults
    uniform = np.random.default_rng(seed_for(seed, "methods"))
    yield {**defaults, "method": method}
    for _ in range(n - 1):
        params = dict(defaults)
        for name, one in distributions.items():
            if isinstance(one, FloatDistribution):
                params[name] = float(uniform.uniform(one.low, one.high))
        yield {**params, "method": method}


def table(rows: Sequence[Row]) -> str:
    """Lay out the methods, best on held-out items first, paired with task arithmetic by seed."""
    by_method: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_method.setdefault(str(row["name"]), {})[int(row["seed"])] = row
    reference = by_method.get(_REFERENCE, {})
    order = sorted(by_method, key=lambda name: -_mean(by_method[name].values(), "test"))
    cells = [_cells(name, by_method[name], reference) for name in order]
    return markdown(_COLUMNS, cells, list(rows))


def _cells(name: str, rows: dict[int, Row], reference: dict[int, Row]) -> list[str]:
    tests = [float(row["test"]) for row in rows.values()]
    gains = [float(rows[s]["test"]) - float(reference[s]["test"]) for s in rows if s in reference]
    spread = f"{np.std(tests, ddof=1):.3f}" if len(tests) > 1 else "–"
    wins = f"{np.mean(gains):+.3f}, better in {sum(g > 0 for g in gains)}" if gains else "–"
    means = [f"{_mean(rows.values(), which):.3f}" for which in ("search", "test")]
    seconds = f"{_mean(rows.values(), 'seconds'):.0f}"
    return [f"`{name}`", str(len(rows)), *means, spread, wins, seconds]


def _mean(rows: Iterable[Row], which: str) -> float:
    return float(np.mean([float(row[which]) for row in rows]))


def _parts(limit: int | None) -> Loaded:
    """Load the quickstart over all methods, with prompts for those that need some."""
    suite = {
        "tasks": ["zoo_math", "zoo_list", "zoo_facts"],
        "include_path": str(EMBEDDED.resolve()),
        "splits": {"search": "search", "test": "test"},
        "limit": limit,
    }
    chosen = [f"search_space={_SPACE}", f"evaluators={json.dumps([suite])}", "finalists=0"]
    loaded = Loaded.of(load_quickstart(chosen))
    folder = StudyFolder(Path("runs/benchmarks/methods"))
    folder.make()
    return Loaded.of(with_prompts(loaded, folder))


def _methods(parts: Loaded) -> list[str]:
    found = parts.space.distributions["method"]
    assert isinstance(found, CategoricalDistribution)
    return [str(name) for name in found.choices]


def _rows(names: Sequence[str], seeds: int, budget: _Budget) -> list[Row]:
    keys = [budget.key(name, seed) for name in names for seed in range(1, seeds + 1)]
    return latest("methods", keys)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20, help="of each method and seed")
    parser.add_argument("--limit", type=int, help="items per task and split; default: all")
    parser.add_argument("--methods", default="", help="NAME,NAME; default: all of the space")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
