"""``make gpu``: run the phases, show one table, keep one JSON file.

The exit status says what failed: bit k (1, 2, 4 ...) is the k-th phase of ``phases.PHASES``; 128 is
a machine without a GPU, or nothing to write.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from tests.benchmarks.gpu.machine import describe, gpu_fault
from tests.benchmarks.gpu.phases import PHASES, TOTAL_S, failure_code
from tests.benchmarks.gpu.running import load, run_phases, store
from tests.benchmarks.gpu.tables import markdown_table, phase_lines, summary
from tests.benchmarks.readme import write_readme

_NO_GPU = 128
_DRY_STRETCH = 6.0  # a dry run is about what happens, not about when


def _main() -> int:
    chosen = _arguments()
    if chosen.write and not (chosen.out / "gpu.json").is_file():
        print(f"expected gpu.json in {chosen.out}: run make gpu first", file=sys.stderr)
        return _NO_GPU
    if chosen.write:
        write_readme({"gpu": markdown_table(*load(chosen.out / "gpu.json"))}, chosen.write)
        return 0
    chosen.out.mkdir(parents=True, exist_ok=True)
    machine = describe()
    fault = None if chosen.dry else gpu_fault(machine)
    if fault:
        print(f"{fault}; DRY=1 runs all phases in miniature without one", file=sys.stderr)
        return _NO_GPU
    return _run(chosen, machine)


def _run(chosen: argparse.Namespace, machine: dict[str, object]) -> int:
    date = datetime.now(timezone.utc).date().isoformat()
    about = {"date": date, "is_dry": chosen.dry, "machine": machine}
    name = "gpu-dry" if chosen.dry else "gpu"
    log = chosen.out / f"{name}.log"
    log.unlink(missing_ok=True)
    stretch = _DRY_STRETCH if chosen.dry else 1.0
    phases = [
        replace(phase, limit_s=phase.limit_s * stretch)
        for phase in PHASES
        if phase.name in (chosen.phases or (phase.name,))
    ]

    def command(name: str, found: Path, limit_s: float) -> list[str]:
        options = ["--dry"] if chosen.dry else []
        arguments = [name, str(found), f"{limit_s:.0f}", *options]
        return [sys.executable, "-m", "tests.benchmarks.gpu.one", *arguments]

    results = []
    for result in run_phases(phases, command, total_s=TOTAL_S * stretch, log=log):
        results.append(result)
        store(results, about, chosen.out / f"{name}.json")
        print("\n".join(phase_lines(result)), flush=True)
    print(f"\n{summary(results)}")
    return failure_code(result.name for result in results if result.has_failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument(
        "phases", nargs="*", metavar="PHASE", help="; ".join(p.name for p in PHASES)
    )
    parser.add_argument("--dry", action="store_true", help="in miniature, without a GPU")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks"), help="folder of gpu.json and gpu.log"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="run nothing: put gpu.json's table into a page"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(_main())
