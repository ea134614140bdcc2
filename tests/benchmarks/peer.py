"""Time to make a candidate against mergekit's ``merge_state_dicts``, both in one run.

mergekit lives in an environment of its own (its pins differ from ours):

    python3 -m venv .venv-mergekit
    .venv-mergekit/bin/pip install mergekit==0.1.5
    python -m tests.benchmarks.peer

110M parameters, base + 3 experts, bfloat16, on all cores. Ours: lowering and one pass into reused
buffers; the statistics, which one pass computes once for all candidates, are timed apart.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import Job
from evomerge.methods.base import Method, TensorContext
from evomerge.methods.registry import method
from evomerge.statistics.tensor import TensorStatistics
from tests.benchmarks.shapes import EXPERTS, random_tensors

_REPEATS = 5
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


def run() -> list[str]:
    """Measure every case; returns the lines of a table."""
    python = _ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        return [f"no mergekit to compare with: {_ENVIRONMENT} is missing (see {__file__})"]
    sources = [random_tensors(seed) for seed in range(EXPERTS + 1)]
    out = [torch.zeros_like(tensor) for tensor in sources[0]]
    lines = [f"{'method':14}{'statistics':>12}{'candidate':>11}{'mergekit':>10}{'ratio':>8}"]
    for name, (ours, theirs) in _CASES.items():
        once, each = _our_seconds(method(name).bind(ours, _NAMES), sources, out)  # type: ignore[arg-type]
        peer = _their_seconds(python, name, theirs)
        lines.append(f"{name:14}{once:10.2f} s{each:9.3f} s{peer:8.1f} s{peer / each:8.0f}")
    return lines


def _our_seconds(
    bound: Method, sources: list[list[torch.Tensor]], out: list[torch.Tensor]
) -> tuple[float, float]:
    """Return seconds of the first candidate's lowering, and the median of whole candidates."""
    contexts = [
        TensorContext(str(i), _NAMES, TensorStatistics(base, experts), seed=0)
        for i, (base, *experts) in enumerate(zip(*sources, strict=True))
    ]

    def lowered() -> list[Job]:
        tensors = zip(contexts, zip(*sources, strict=True), out, strict=True)
        return [
            Job(bound.lower(context), base, experts, buffer)
            for context, (base, *experts), buffer in tensors
        ]

    once = _seconds(lowered)
    merge_all(lowered())  # compiles
    return once, statistics.median(_seconds(lambda: merge_all(lowered())) for _ in range(_REPEATS))


def _their_seconds(python: Path, name: str, parameters: dict[str, object]) -> float:
    done = subprocess.run(
        [str(python), "-c", _THEIRS, os.getcwd(), name, json.dumps(parameters)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split("SECONDS")[1])


def _seconds(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


if __name__ == "__main__":
    print("\n".join(run()))
