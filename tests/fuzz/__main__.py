"""``make fuzz``: many damaged inputs of every kind, and a table of what came of them.

``python -m tests.fuzz [--yaml N] [--models N] [--studies N] [--kinds TEXT…] [--first SEED]``.
``--kinds NAME --first SEED --yaml 1 --show`` reads one input again and prints what was said.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.guard import BAD, Finding, Fuzzed, fuzz

_OUTCOMES = ("accepted", "refused", *BAD)


def main() -> int:
    """Fuzz all kinds; return how many findings are faults of ours."""
    options = _options()
    with TemporaryDirectory(prefix="evomerge-fuzz-") as cache:
        os.environ["EVOMERGE_CACHE"] = cache
        groups = _groups(options)
        print(_row("input", *_OUTCOMES, "slowest"), flush=True)
        n_bad = sum(
            _fuzz_kind(name, kind, n // len(kinds) + (at < n % len(kinds)), options)
            for kinds, n in groups
            for at, (name, kind) in enumerate(kinds.items())
        )
    return min(n_bad, 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    for group, n in (("yaml", 10_000), ("models", 10_000), ("studies", 2_000)):
        parser.add_argument(f"--{group}", type=int, default=n, help="inputs of all its kinds")
    parser.add_argument("--kinds", nargs="*", default=[""], help="only kinds with this text")
    parser.add_argument("--first", type=int, default=0, help="seed of each kind's first input")
    parser.add_argument("--show", action="store_true", help="print what was said")
    return parser.parse_args()


def _groups(options: argparse.Namespace) -> list[tuple[Mapping[str, Fuzzed], int]]:
    from tests.fuzz.model_inputs import MODEL_KINDS
    from tests.fuzz.study_inputs import STUDY_KINDS
    from tests.fuzz.yaml_inputs import YAML_KINDS

    groups = ((YAML_KINDS, options.yaml), (MODEL_KINDS, options.models),
              (STUDY_KINDS, options.studies))  # fmt: skip
    chosen = [
        ({k: v for k, v in kinds.items() if any(text in k for text in options.kinds)}, n)
        for kinds, n in groups
    ]
    return [(kinds, n) for kinds, n in chosen if kinds and n]


def _fuzz_kind(name: str, kind: Fuzzed, n: int, options: argparse.Namespace) -> int:
    counts: Counter[str] = Counter()
    slowest = 0.0
    with TemporaryDirectory(prefix="evomerge-fuzz-") as root:
        for found in fuzz(kind, name, n, Path(root), options.first):
            counts[found.outcome] += 1
            slowest = max(slowest, found.seconds)
            if options.show or found.outcome in BAD:
                _show(name, found)
    print(_row(name, *(counts[outcome] for outcome in _OUTCOMES), f"{slowest:.1f} s"), flush=True)
    return sum(counts[outcome] for outcome in BAD)


def _show(name: str, found: Finding) -> None:
    print(f"{name}, seed {found.seed}: {found.outcome}\n{found.said}", file=sys.stderr, flush=True)


def _row(*cells: object) -> str:
    return f"| {cells[0]!s:20} | {' | '.join(f'{cell!s:>10}' for cell in cells[1:])} |"


if __name__ == "__main__":
    sys.exit(main())
