"""``make bench-search``: compare samplers on real searches of the embedded models.

``python -m tests.benchmarks.searches [--seeds N] [--cases TEXT…] [--methods NAME,…] [--jobs N]``.
A search takes one to three minutes of one core. Every finished one is kept in
``measured.jsonl`` here, a study that was interrupted goes on where it stopped;
``--again`` runs what is chosen anew, as is needed after a sampler was changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from evomerge.samplers import sampler_names
from tests.benchmarks.bayes import BOTORCH
from tests.benchmarks.evolve import PEER
from tests.benchmarks.readme import write_readme
from tests.benchmarks.searches.cases import CASES, FOLDER, Case
from tests.benchmarks.searches.methods import AFTER_SLOPES, WHOLE_MODEL, load_case
from tests.benchmarks.searches.pooled import POOLED, write_pooled
from tests.benchmarks.searches.rows import read
from tests.benchmarks.searches.running import run
from tests.benchmarks.searches.table import tables

__all__ = ["DOCS"]

DOCS = Path("docs/samplers.md")

_METHODS = f"auto,{PEER},{WHOLE_MODEL},map,catcma,nsga2"


def main() -> None:
    """Run what is missing, then print."""
    options = _options()
    write_pooled(FOLDER / POOLED)
    cases = [case for case in CASES if any(text in case.name for text in options.cases)]
    if options.trials is not None:
        cases = [replace(case, trials=options.trials) for case in cases]
    auto = {case.name: _auto(case) for case in cases}
    if not options.tables:
        methods = {case: list(_methods(options.methods, case, auto[case.name])) for case in cases}
        seeds = range(1, options.seeds + 1)
        wanted = [(case, m, seed) for seed in seeds for case in cases for m in methods[case]]
        run(wanted, options.jobs, again=options.again)
    found = tables(read(), cases, auto)
    print("\n\n".join(f"## {name}\n\n{table}" for name, table in found.items()))
    if options.write_docs:
        write_readme(found, DOCS)


def _auto(case: Case) -> str:
    experiment = load_case(case).experiment
    first = AFTER_SLOPES if experiment.seeds.slopes else ""
    return first + experiment.sampler.name


def _methods(chosen: str, case: Case, auto: str) -> Iterator[str]:
    """List what runs on a case, each once; of one size for all layers there is nothing to share."""
    names = [auto if name == "auto" else name for name in chosen.split(",")]
    for name in dict.fromkeys(names):
        if not (name == WHOLE_MODEL and case.is_whole_model):
            yield name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cases", nargs="+", default=[""], help="only names that contain one")
    parser.add_argument("--methods", default=_METHODS, help="comma-separated")
    parser.add_argument("--trials", type=int, help="another budget for every case")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run anew what is kept")
    parser.add_argument("--tables", action="store_true", help="show what was kept, run nothing")
    parser.add_argument("--write-docs", action="store_true", help=f"rewrite the tables of {DOCS}")
    options = parser.parse_args()
    methods = {name.removeprefix(AFTER_SLOPES) for name in options.methods.split(",")}
    if unknown := methods - {*sampler_names(), PEER, BOTORCH, WHOLE_MODEL}:
        parser.error(f"unknown methods {', '.join(unknown)}")
    if options.write_docs and (any(options.cases) or options.trials):
        parser.error("expected all cases as they are where the docs are written")
    return options


if __name__ == "__main__":
    main()
