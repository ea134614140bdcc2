"""Searches of 8 to 40 evaluations on landscapes, climbs along slopes included.

``python -m tests.benchmarks.landscapes.short [--seeds N] [--cases TEXT…] [--write-docs]``: minutes.
One candidate runs at a time, and a climb counts what its items do. Each search has 40 evaluations
and is looked at on its way, as if it ended there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from evomerge.execution.climb import SlopedGenes, climb
from evomerge.execution.protocol import Climb
from evomerge.optuna_internals import storage_of, trial_id
from evomerge.samplers import SearchProblem, build_sampler
from evomerge.samplers.learned import CLIMB, CLIMBED
from evomerge.study.evaluations import climb_evaluations
from tests.benchmarks.evolve import PEER
from tests.benchmarks.landscapes.cases import CASES, Case
from tests.benchmarks.landscapes.landscape import N_ITEMS
from tests.benchmarks.landscapes.searches import OTHERS, WHOLE_MODEL, Log, new_study
from tests.benchmarks.landscapes.slopes import NoisySlopes
from tests.benchmarks.quality import FloatArray
from tests.benchmarks.readme import write_readme
from tests.benchmarks.results import layout

__all__ = ["DOCS", "LOOKS", "short_table"]

LOOKS = (8, 12, 16, 24, 32, 40)
"""Evaluations after which a search is looked at."""

DOCS = Path("docs/samplers.md")
"""Where the tables are published."""

_TUNED = ("layers, 3 objectives", "layers, mean, short", "methods, 2 objectives")
_JUDGED = ("layers, 2 objectives", "TIES, 2 objectives")

_BUDGET = LOOKS[-1]

_Search = Callable[[Case, int], FloatArray]


def main() -> None:
    """Run all, then print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cases", nargs="+", default=[""], help="only names that contain one")
    parser.add_argument("--write-docs", action="store_true", help=f"rewrite the tables of {DOCS}")
    options = parser.parse_args()
    found = {}
    for role, names in (("tuned", _TUNED), ("judged", _JUDGED)):
        chosen = [name for name in names if any(text in name for text in options.cases)]
        if not chosen:
            continue
        cases = [case for case in CASES if case.name in chosen]
        found[f"landscapes-short-{role}"] = short_table(list(_results(cases, options.seeds)))
        print(found[f"landscapes-short-{role}"], flush=True)
    if options.write_docs:
        write_readme(found, DOCS)


def short_table(results: list[tuple[str, str, FloatArray]]) -> str:
    """Lay out searches in Markdown.

    Args:
        results: Case, method, and (seeds, looks, 2) hypervolumes and best means.
    """
    columns = ["search", "method", "seeds", *map(str, LOOKS)]
    lines = [
        [case, method, str(len(found)), *(f"{m:.3f}, {v:.3f}" for v, m in found.mean(axis=0))]
        for case, method, found in results
    ]
    return layout(columns, lines)


def _results(cases: list[Case], n_seeds: int) -> Iterator[tuple[str, str, FloatArray]]:
    for case in cases:
        short = replace(case, trials=_BUDGET)
        for method, search in _METHODS.items():
            yield case.name, method, np.array([search(short, s + 1) for s in range(n_seeds)])


def _auto(case: Case, seed: int) -> FloatArray:
    """Search as ``auto`` does."""
    problem = _problem(case, seed)
    return _climbing(case, seed, build_sampler("auto", {}, problem))


def _whole_climbs(case: Case, seed: int) -> FloatArray:
    """Search along slopes whose first climbs are as long as all."""
    return _climbing(case, seed, build_sampler("slopes", {"short": 0}, _problem(case, seed)))


def _without_slopes(case: Case, seed: int) -> FloatArray:
    problem = replace(_problem(case, seed), sloped_objectives=())
    return _climbing(case, seed, build_sampler("auto", {}, problem))


def _other(name: str) -> _Search:
    def search(case: Case, seed: int) -> FloatArray:
        log = Log(case, seed)
        OTHERS[name](case, name, seed, log)
        return _looks(log, list(range(1, len(log) + 1)))

    return search


_METHODS: Mapping[str, _Search] = {
    "auto": _auto,
    "auto, whole climbs": _whole_climbs,
    "auto, no slopes": _without_slopes,
    PEER: _other(PEER),
    WHOLE_MODEL: _other(WHOLE_MODEL),
}


def _problem(case: Case, seed: int) -> SearchProblem:
    return SearchProblem(
        case.landscape.genes,
        case.n_objectives,
        case.trials,
        seed,
        sloped=NoisySlopes(case, seed).names,
        sloped_objectives=(True,) * case.n_objectives,
    )


def _climbing(case: Case, seed: int, sampler: BaseSampler) -> FloatArray:
    """Run one trial after the other; a climb whose end no trial could try is left out."""
    log, study = Log(case, seed), new_study(sampler, case)
    for params in case.landscape.parents:
        study.enqueue_trial(dict(params))
    space, slopes = case.landscape.space, NoisySlopes(case, seed)
    axes = SlopedGenes(space)
    costs, used = list[float](), 0.0
    while used + 1 <= case.trials:
        trial = study.ask()
        values = log.score(space.suggest(trial)).tolist()
        used += 1
        costs.append(used)
        if (wanted := _climb_of(study, trial)) and wanted.is_wanted(values):
            extra = climb_evaluations(wanted.n_items, N_ITEMS * len(case.tasks))
            if used + extra + 1 <= case.trials:
                used += extra
                end = climb(wanted, axes, partial(slopes.sums, wanted))
                trial.set_user_attr(CLIMBED, {"params": dict(end.params)})
        study.tell(trial, values)
    return _looks(log, costs)


def _climb_of(study: optuna.Study, trial: optuna.Trial) -> Climb | None:
    found = storage_of(study).get_trial(trial_id(trial)).user_attrs.get(CLIMB)
    return None if found is None else Climb.read(found)


def _looks(log: Log, costs: list[float]) -> FloatArray:
    """Judge (looks, 2) what there was after so many evaluations."""
    return np.array([log.quality(sum(cost <= look for cost in costs)) for look in LOOKS])


if __name__ == "__main__":
    main()
