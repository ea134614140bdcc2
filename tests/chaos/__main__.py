"""``make chaos``: many kills of small studies, and a table of what became of them.

``python -m tests.chaos [--kills N] [--points N] [--seed N] [--executors inline ray]``: how many
kills at a time, how many at a write, and the first seed. Every study's result is kept in
``runs/chaos/results.jsonl``: what was interrupted goes on where it stopped; ``--again``: anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from tests.chaos.studies import Case, Result, disturbed, undisturbed

_FOLDER = Path("runs/chaos")
_INLINE = ("map", "nsga2", "random", "tpe", "catcma", "slopes", "m2n2", "comocma")
_RAY = (("map", 1), ("nsga2", 1), ("map", 2), ("nsga2", 2))
_Row = tuple[Case, Result]


def main() -> int:
    """Kill what is missing, then print; return whether something is wrong."""
    options = _options()
    root = options.folder.resolve()
    if options.again:
        shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("EVOMERGE_CACHE", str(root / "cache"))
    _import_all()
    rows = list(_rows(options, root))
    print(table(rows))
    return any(_is_wrong(case, result) for case, result in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--kills", type=int, default=200, help="kills at any time, in all")
    parser.add_argument("--points", type=int, default=100, help="kills at a write, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first study")
    parser.add_argument("--executors", nargs="*", default=["inline", "ray"])
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    return parser.parse_args()


def _import_all() -> None:
    """Import what drivers need, once: they are forked."""
    import evomerge.cli.searching
    import evomerge.execution.worker
    import evomerge.runs.cost
    import evomerge.runs.stages  # noqa: F401


def _rows(options: argparse.Namespace, root: Path) -> Iterator[_Row]:
    file = root / "results.jsonl"
    known = _read(file)
    whole = cache(partial(undisturbed, root=root))
    for is_point, wanted in ((False, options.kills), (True, options.points)):
        n_kills = 0
        for seed in itertools.count(options.seed):
            if n_kills >= wanted:
                break
            name = f"{'point' if is_point else 'time'}-{seed}"
            case = _case(seed, options.executors, is_point=is_point)
            if name not in known:
                folder = root / name
                result = disturbed(case, whole(_plain(case)), folder, seed)
                _keep(file, name, case, result)
                if not _is_wrong(case, result):
                    shutil.rmtree(folder)
            else:
                case, result = known[name]
            n_kills += result.kills
            yield case, result


def _case(seed: int, executors: list[str], *, is_point: bool) -> Case:
    rng = random.Random(f"case {seed}")
    inline = [(name, 0) for name in _INLINE] if "inline" in executors else []
    ray = list(_RAY) * 2 if "ray" in executors and not is_point else []
    sampler, workers = rng.choice(inline + ray)
    kinds = ("driver", "group", "worker") if workers else ("driver", "group")
    return Case(sampler, workers, "point" if is_point else rng.choice(kinds))


def _plain(case: Case) -> Case:
    """Give what an undisturbed study depends on."""
    return Case(case.sampler, case.workers, "driver")


def _read(file: Path) -> dict[str, _Row]:
    lines = file.read_text().splitlines() if file.is_file() else []
    found = [json.loads(line) for line in lines]
    return {row["name"]: (Case(**row["case"]), Result(**row["result"])) for row in found}


def _keep(file: Path, name: str, case: Case, result: Result) -> None:
    row = {"name": name, "case": asdict(case), "result": asdict(result)}
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")
    print(
        f"{name} {case.sampler} {case.executor} {case.kill}: {result}", file=sys.stderr, flush=True
    )


def _is_wrong(case: Case, result: Result) -> bool:
    return bool(result.lost or result.doubled or result.fault or result.identical is False)


def table(rows: list[_Row]) -> str:
    """Write a line per executor, sampler and kind of kill."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for case, result in rows:
        groups.setdefault((case.executor, case.sampler, case.kill), []).append(result)
    lines = [_line(*key, results) for key, results in sorted(groups.items())]
    every = [result for _, result in rows]
    head = ("executor", "sampler", "killed", "studies", "kills", "resumed", "lost", "doubled",
            "identical", "other faults")  # fmt: skip
    return "\n".join(
        [_cells(head), _cells(["---"] * len(head)), *lines, _line("all", "", "", every)]
    )


def _line(executor: str, sampler: str, kill: str, results: list[Result]) -> str:
    compared = [result.identical for result in results if result.identical is not None]
    sums = [
        sum(getattr(r, name) for r in results) for name in ("kills", "resumed", "lost", "doubled")
    ]
    identical = f"{sum(compared)} of {len(compared)}" if compared else "any order"
    faults = sum(bool(result.fault) for result in results)
    return _cells([executor, sampler, kill, len(results), *sums, identical, faults])


def _cells(cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())
