"""``make fuzz``: many damaged inputs of every kind, and a table of what came of them.

``python -m tests.fuzz [--yaml N] [--models N] [--studies N] [--kinds TEXT…] [--first SEED]``.
``--kinds NAME --first SEED --yaml 1 --show`` reads one input again and prints what was said.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.guard import BAD, BATCH, Fuzzed, fuzz

_OUTCOMES = ("accepted", "refused", *BAD)


def main() -> int:
    """Fuzz all kinds in turn; return whether a finding is a fault of ours."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is cut short has its table
    with TemporaryDirectory(prefix="evomerge-fuzz-") as root:
        os.environ["EVOMERGE_CACHE"] = f"{root}/cache"
        kinds = [_Kind(*one, Path(root), options) for one in _wanted(options)]
        with suppress(KeyboardInterrupt):
            while sum(kind.go_on() for kind in kinds):
                pass
    print(
        "\n".join(
            (_cells("input", *_OUTCOMES, "slowest"), *(kind.row() for kind in kinds if kind.counts))
        )
    )
    return any(kind.counts[outcome] for kind in kinds for outcome in BAD)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    for group, n in (("yaml", 10_000), ("models", 10_000), ("studies", 2_000)):
        parser.add_argument(f"--{group}", type=int, default=n, help="inputs of all its kinds")
    parser.add_argument("--kinds", nargs="*", default=[""], help="only kinds with this text")
    parser.add_argument("--first", type=int, default=0, help="seed of each kind's first input")
    parser.add_argument("--show", action="store_true", help="print what was said")
    return parser.parse_args()


def _wanted(options: argparse.Namespace) -> Iterator[tuple[str, Fuzzed, int]]:
    """List the kinds that are chosen, and how many inputs of each are read."""
    from tests.fuzz.model_inputs import MODEL_KINDS
    from tests.fuzz.study_inputs import STUDY_KINDS
    from tests.fuzz.yaml_inputs import YAML_KINDS

    groups = ((YAML_KINDS, options.yaml), (MODEL_KINDS, options.models),
              (STUDY_KINDS, options.studies))  # fmt: skip
    for kinds, n in groups:
        chosen = [name for name in kinds if any(text in name for text in options.kinds)]
        for at, name in enumerate(chosen):
            yield name, kinds[name], n // len(chosen) + (at < n % len(chosen))


class _Kind:
    """One kind of input, some of which are read at a time."""

    def __init__(
        self, name: str, kind: Fuzzed, n: int, root: Path, options: argparse.Namespace
    ) -> None:
        self._name, self._shows_all = name, options.show
        self._found = fuzz(kind, name, n, root / name, options.first) if n else iter(())
        self.counts: Counter[str] = Counter()
        self._slowest = 0.0

    def go_on(self) -> bool:
        """Read some more; whether there were any left."""
        some = list(islice(self._found, BATCH))
        for found in some:
            self.counts[found.outcome] += 1
            self._slowest = max(self._slowest, found.seconds)
            if self._shows_all or found.outcome in BAD:
                print(f"{self._name}, seed {found.seed}: {found.outcome}\n{found.said}", flush=True)
        return bool(some)

    def row(self) -> str:
        """Write what came of the inputs that were read."""
        counts = (self.counts[outcome] for outcome in _OUTCOMES)
        return _cells(self._name, *counts, f"{self._slowest:.1f} s")


def _cells(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
