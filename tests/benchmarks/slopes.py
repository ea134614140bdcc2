"""Speed of the CPU kernel that finds slopes, against the copy bandwidth, both measured in one run.

Run with ``python -m tests.benchmarks.slopes [METHOD...]``: about a minute, 2 GB. The rows are kept
in ``runs/benchmarks/slopes.jsonl``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import torch

from evomerge.kernels.cpu import slopes_cpu
from evomerge.kernels.job import SlopeJob
from tests.benchmarks.kernels import REPEATS, methods, seconds
from tests.benchmarks.results import Row, keep, latest, markdown
from tests.benchmarks.shapes import EXPERTS, random_tensors

__all__ = ["main"]

_TARGET = "task_arithmetic"  # is to reach 0.6 of the copy


def main(names: Sequence[str] = ()) -> None:
    """Measure methods (all by default) on a 110M-parameter Llama in bfloat16, and show a table."""
    os.environ["EVOMERGE_CACHE"] = "off"  # so that first calls compile
    models = [random_tensors(seed) for seed in range(EXPERTS + 2)]
    for name in names or methods():
        keep("slopes", _row(name, models))
    rows = latest("slopes", methods())
    columns = ["method", "all slopes", "read", "copy", "read / copy", "first call, compiles"]
    print(markdown(columns, map(_cells, rows), rows))
    for row in rows:
        if row["method"] == _TARGET:
            print(f"{_TARGET}: {_ratio(row):.2f} of the copy bandwidth (target 0.6)")


def _row(name: str, models: list[list[torch.Tensor]]) -> Row:
    gradients, bases, *experts = models
    jobs = [
        SlopeJob(methods()[name](gradient.shape), base, own, gradient)
        for gradient, base, *own in zip(gradients, bases, *experts, strict=True)
    ]
    out = [torch.zeros_like(tensor) for tensor in bases]

    def copy() -> None:
        for buffer, tensor in zip(out, bases, strict=True):
            buffer.copy_(tensor)

    compile_seconds = seconds(lambda: slopes_cpu(jobs[:1]))
    pairs = [(seconds(copy), seconds(lambda: slopes_cpu(jobs))) for _ in range(REPEATS)]
    copies, found = zip(*pairs, strict=True)
    n_bytes = sum(tensor.nbytes for tensor in out)
    return {
        "method": name,
        "slopes_s": min(found),
        "read_bytes_per_s": (EXPERTS + 2) * n_bytes / min(found),
        "copy_bytes_per_s": 2 * n_bytes / min(copies),
        "first_call_s": compile_seconds,
    }


def _ratio(row: Row) -> float:
    return float(row["read_bytes_per_s"]) / float(row["copy_bytes_per_s"])


def _cells(row: Row) -> list[str]:
    return [
        str(row["method"]),
        f"{row['slopes_s']:.3f} s",
        f"{float(row['read_bytes_per_s']) / 1e9:.1f} GB/s",
        f"{float(row['copy_bytes_per_s']) / 1e9:.1f} GB/s",
        f"{_ratio(row):.2f}",
        f"{row['first_call_s']:.1f} s",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
