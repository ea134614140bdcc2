"""``make scale``: studies of 1,000, 10,000 and 100,000 trials, and what each command costs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.scale.cost import COMMANDS, cost_of
from tests.benchmarks.scale.make import make_study

__all__ = ["rows"]

_ITEM_ROWS = 10**6


def rows(root: Path, lengths: Sequence[int]) -> Iterator[str]:
    """Make studies, run every command on each, and write the rows of the table as Markdown."""
    yield "| trials | command | seconds | CPU s | memory | reads |"
    yield "|---:|---|---:|---:|---:|---:|"
    for n_trials in lengths:
        n_items = min(100, _ITEM_ROWS // n_trials)
        folder, loop_s = make_study(root / str(n_trials), n_trials, n_items=n_items)
        for command in COMMANDS:
            cost = cost_of(command, folder.root)
            yield (
                f"| {n_trials:,} | `{command}` | {cost.seconds:.1f} | {cost.cpu_seconds:.1f} "
                f"| {cost.megabytes:,.0f} MB | {cost.reads} |"
            )
        items = list(folder.items.glob("*"))
        yield (
            f"| {n_trials:,} | files | journal {folder.journal.stat().st_size / 1e6:.0f} MB, "
            f"{len(items)} of items {sum(f.stat().st_size for f in items) / 1e6:.0f} MB "
            f"({n_trials * n_items:,} rows); {1 / loop_s:.0f} asks and tells per second ||||"
        )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    with tempfile.TemporaryDirectory() as root:
        for row in rows(Path(root), parser.parse_args().trials):
            print(row, flush=True)


if __name__ == "__main__":
    _main()
