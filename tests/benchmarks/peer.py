"""Time to make a candidate against mergekit's ``merge_state_dicts``, both in one run.

mergekit lives in an environment of its own (its pins differ from ours):

    python3 -m venv .venv-mergekit
    .venv-mergekit/bin/pip install mergekit==0.1.5
    python -m tests.benchmarks.peer [METHOD ...] [--time-out SECONDS]

110M parameters, base + 3 experts, bfloat16, on all cores. Ours: lowering and one pass into reused
buffers; the statistics, which one pass computes once for all candidates, are timed apart. Every
method is a row of ``runs/benchmarks/peer.jsonl``, from which the table is made: slow ones may be
run one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import MergeJob
from evomerge.methods.base import Method, TensorContext
from evomerge.methods.registry import method
from evomerge.statistics.tensor import TensorStatistics
from tests.benchmarks.results import Row, keep, latest, markdown
from tests.benchmarks.shapes import EXPERTS, random_tensors

__all__ = ["METHODS", "measure", "table"]

_REPEATS = 5
_TIME_OUT_S = 900.0
_ENVIRONMENT = Path(".venv-mergekit")
_NAMES = tuple(f"e{i}" for i in range(EXPERTS))

# Our method and its parameters; mergekit's, with the same meaning.
_CASES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "linear": ({"coefficient": 0.3}, {"weight": 0.3, "normalize": True}),
    "ties": ({"coefficient": 0.3, "density": 0.4}, {"weight": 0.3, "density": 0.4}),
    "sce": ({"select_topk": 0.5}, {"select_topk": 0.5}),
    "breadcrumbs": (
        {"coefficient": 0.3, "density": 0.4},
        {"weight": 0.3, "density": 0.4, "gamma": 0.01},
    ),
    "dare_ties": ({"coefficient": 0.3, "density": 0.4}, {"weight": 0.3, "density": 0.4}),
    "della": ({"coefficient": 0.3, "density": 0.4}, {"weight": 0.3, "density": 0.4}),
}

_THEIRS = """
import json, sys, time, torch
sys.path.insert(0, sys.argv[1])
from tests.benchmarks.shapes import EXPERTS, random_tensors
from mergekit.merge_methods.api import merge_state_dicts
name, parameters = sys.argv[2], json.loads(sys.argv[3])
models = [
    {str(i): t for i, t in enumerate(random_tensors(seed))} for seed in range(EXPERTS + 1)
]
if name == "linear":
    models = models[1:]
base = None if name == "linear" else 0
with torch.no_grad():
    start = time.perf_counter()
    merge_state_dicts(models, name, parameters=parameters, base=base)
print("SECONDS", time.perf_counter() - start)
"""


METHODS = tuple(_CASES)


def measure(methods: Sequence[str] = METHODS, time_out_s: float = _TIME_OUT_S) -> None:
    """Measure methods on both sides and keep a row of each.

    Args:
        methods: Some of ``METHODS``.
        time_out_s: After so long mergekit is stopped, and its row says "more than that".
    """
    python = _ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        print(f"no mergekit to compare with: {_ENVIRONMENT} is missing (see {__file__})")
        return
    sources = [random_tensors(seed) for seed in range(EXPERTS + 1)]
    out = [torch.zeros_like(tensor) for tensor in sources[0]]
    for name in methods:
        ours, theirs = _CASES[name]
        once, each = _our_seconds(method(name).bind(ours, _NAMES), sources, out)  # type: ignore[arg-type]
        peer = _their_seconds(python, name, theirs, time_out_s)
        row: Row = {
            "method": name,
            "statistics_s": once,
            "candidate_s": each,
            "mergekit_s": time_out_s if peer is None else peer,
            "timed_out": peer is None,
        }
        keep("peer", row)
        print("  ".join(_cells(row)), flush=True)


def table() -> str:
    """Show the latest row of each method, as Markdown."""
    rows = latest("peer", METHODS)
    columns = ["method", "statistics, once", "candidate", "mergekit 0.1.5", "ratio"]
    return markdown(columns, map(_cells, rows), rows)


def _cells(row: Row) -> list[str]:
    theirs, ours = float(row["mergekit_s"]), float(row["candidate_s"])
    at_least = "> " if row["timed_out"] else ""
    return [
        str(row["method"]),
        f"{row['statistics_s']:.2f} s",
        f"{ours:.3f} s",
        f"{at_least}{theirs:.1f} s",
        f"{at_least}{theirs / ours:.0f}",
    ]


def _our_seconds(
    bound: Method, sources: list[list[torch.Tensor]], out: list[torch.Tensor]
) -> tuple[float, float]:
    """Return seconds of the first candidate's lowering, and the median of whole candidates."""
    contexts = [
        TensorContext(str(i), _NAMES, TensorStatistics(base, experts), seed=0)
        for i, (base, *experts) in enumerate(zip(*sources, strict=True))
    ]

    def lowered() -> list[MergeJob]:
        tensors = zip(contexts, zip(*sources, strict=True), out, strict=True)
        return [
            MergeJob(bound.lower(context), base, experts, buffer)
            for context, (base, *experts), buffer in tensors
        ]

    once = _seconds(lowered)
    merge_all(lowered())  # compiles
    return once, statistics.median(_seconds(lambda: merge_all(lowered())) for _ in range(_REPEATS))


def _their_seconds(
    python: Path, name: str, parameters: dict[str, object], time_out_s: float
) -> float | None:
    """Time mergekit in a process of its own; ``None`` if it does not finish in time."""
    command = [str(python), "-c", _THEIRS, os.getcwd(), name, json.dumps(parameters)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=time_out_s
        )
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout.split("SECONDS")[1])


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _main() -> None:
    parser = argparse.ArgumentParser(description="Speed against mergekit.")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--time-out", type=float, default=_TIME_OUT_S, metavar="SECONDS")
    chosen = parser.parse_args()
    if unknown := set(chosen.methods) - set(METHODS):
        parser.error(f"expected methods out of {', '.join(METHODS)}, got {', '.join(unknown)}")
    measure(chosen.methods or METHODS, chosen.time_out)
    print(f"\n{table()}")


if __name__ == "__main__":
    _main()
