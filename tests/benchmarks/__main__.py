"""``make bench``: run every benchmark, print its figures, and write the README's tables."""

from __future__ import annotations

import argparse

from tests.benchmarks import kernels, memory, peer, preparation, replay, samplers, slopes, steps
from tests.benchmarks.readme import write_readme

__all__ = ["TABLES"]

TABLES = {"kernels": kernels.table, "peer": peer.table}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-readme", action="store_true", help="rewrite the README's tables")
    parser.add_argument("--tables", action="store_true", help="show what was kept, measure nothing")
    chosen = parser.parse_args()
    if not chosen.tables:
        print(replay.run(), flush=True)
        memory.main()
        samplers.main()
        kernels.measure()
        slopes.main()
        steps.main()
        preparation.main()
        peer.measure()
    tables = {name: table() for name, table in TABLES.items()}
    for name, table in tables.items():
        print(f"\n{name}\n\n{table}")
    if chosen.write_readme:
        write_readme(tables)
        write_readme({"steps": steps.table()}, steps.DOCS)
        write_readme({"preparation": preparation.table()}, preparation.DOCS)


if __name__ == "__main__":
    _main()
