"""``make bench-landscapes``: compare samplers on merge landscapes, and print the table.

``python -m tests.benchmarks.landscapes [--seeds N] [--cases TEXT] [--methods NAME,…] [--jobs N]``.
Every finished search is kept in ``runs/bench-landscapes/results.jsonl``, so an interrupted
comparison goes on where it stopped; delete that file after changing a sampler.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from evomerge.errors import EvomergeError
from evomerge.samplers import SearchProblem, choose, sampler_names
from tests.benchmarks.landscapes.cases import CASES, Case
from tests.benchmarks.landscapes.searches import OTHERS, Progress, search
from tests.benchmarks.landscapes.table import Results, tables

RESULTS = Path("runs/bench-landscapes/results.jsonl")

# Half a second per ask at a hundred trials, and growing: hours for a long case.
_AT_MOST_TRIALS = {"gp": 100}


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cases", default="", help="only cases whose name contains this")
    parser.add_argument("--methods", default="", help="only these, comma-separated")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    cases = [case for case in CASES if options.cases in case.name]
    results = read_results()
    wanted = [
        (case, method, seed)
        for seed in range(1, options.seeds + 1)
        for case in cases
        for method in methods(case)
        if not options.methods or method in options.methods.split(",")
        if (case.name, method, seed) not in results
    ]
    run(wanted, options.jobs)
    print(tables(read_results(), cases, auto={case.name: auto_choice(case) for case in cases}))


def methods(case: Case) -> list[str]:
    """List what can be compared on a case; ``auto`` is one of the samplers."""
    samplers = [
        name
        for name in sampler_names()
        if name != "auto" and case.trials <= _AT_MOST_TRIALS.get(name, case.trials)
    ]
    return [*samplers, *OTHERS]


def auto_choice(case: Case) -> str:
    """Name the sampler that ``auto`` takes."""
    choice = choose(SearchProblem(case.landscape.genes, case.n_objectives, case.trials, seed=0))
    return choice.name


def run(wanted: list[tuple[Case, str, int]], jobs: int) -> None:
    """Run searches, keeping each as it ends."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs) as pool, RESULTS.open("a") as file:
        searches = {pool.submit(search, *one): one for one in wanted}
        for i, finished in enumerate(as_completed(searches), 1):
            case, method, seed = searches[finished]
            try:
                found = asdict(finished.result())
            except EvomergeError as err:  # a sampler that cannot search this kind of space
                found = {"refused": str(err)}
            row = {"case": case.name, "method": method, "seed": seed, **found}
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"\r{i}/{len(wanted)} {case.name}: {method}, seed {seed}      ", end="")


def read_results() -> Results:
    """Read every finished search by case, method and seed; ``None`` where it was refused."""
    found: Results = {}
    for line in RESULTS.read_text().splitlines() if RESULTS.is_file() else []:
        row = json.loads(line)
        key = (row.pop("case"), row.pop("method"), row.pop("seed"))
        found[key] = None if "refused" in row else Progress(**row)
    return found


if __name__ == "__main__":
    main()
