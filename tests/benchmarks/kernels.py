"""Speed of the CPU kernel against the copy bandwidth of the machine, both measured in one run.

Run with ``python -m tests.benchmarks.kernels``: about a minute, 2 GB. The rows are kept in
``runs/benchmarks/kernels.jsonl``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import torch

from evomerge.kernels.cpu import merge_cpu
from evomerge.kernels.job import MergeJob
from evomerge.kernels.plan import (
    Band,
    Elect,
    RandomMask,
    RankedMask,
    Sparsifier,
    Table,
    TensorPlan,
    Variance,
)
from tests.benchmarks.results import Row, keep, latest, markdown
from tests.benchmarks.shapes import EXPERTS, random_tensors

__all__ = ["REPEATS", "measure", "methods", "seconds", "table"]

REPEATS = 15
_KNOTS = 8  # per row, as the methods ask for
_COEFFICIENTS = (0.4, 0.3, 0.5)

Tensors = list[torch.Tensor]
Plans = Callable[[torch.Size], TensorPlan]


def measure() -> None:
    """Measure every method on a 110M-parameter Llama, base and three experts, bfloat16.

    Copies and merges alternate, and the best of each counts: other load on the machine disturbs
    single repeats, not the ratio.
    """
    os.environ["EVOMERGE_CACHE"] = "off"  # so that first calls compile
    sources = [random_tensors(seed) for seed in range(EXPERTS + 1)]
    out = [torch.zeros_like(tensor) for tensor in sources[0]]
    for name, plans in methods().items():
        first, merge = _merger(plans, sources, out, 1), _merger(plans, sources, out)
        keep("kernels", _row(name, first, merge, sources[0], out))


def table() -> str:
    """Show the latest row of each method, as Markdown."""
    rows = latest("kernels", methods())
    columns = ["method", "candidate", "merge", "copy", "merge / copy", "first call, compiles"]
    return markdown(columns, map(_cells, rows), rows)


def _row(
    name: str, first: Callable[[], None], merge: Callable[[], None], source: Tensors, out: Tensors
) -> Row:
    def copy() -> None:
        for buffer, tensor in zip(out, source, strict=True):
            buffer.copy_(tensor)

    compile_seconds = seconds(first)
    copies, merges = zip(*[(seconds(copy), seconds(merge)) for _ in range(REPEATS)], strict=True)
    n_bytes = sum(tensor.nbytes for tensor in out)
    models_moved = EXPERTS + (1 if name == "linear" else 2)
    return {
        "method": name,
        "candidate_s": min(merges),
        "merge_bytes_per_s": models_moved * n_bytes / min(merges),
        "copy_bytes_per_s": 2 * n_bytes / min(copies),
        "first_call_s": compile_seconds,
    }


def _cells(row: Row) -> list[str]:
    merge, copy = float(row["merge_bytes_per_s"]), float(row["copy_bytes_per_s"])
    return [
        str(row["method"]),
        f"{row['candidate_s']:.3f} s",
        f"{merge / 1e9:.1f} GB/s",
        f"{copy / 1e9:.1f} GB/s",
        f"{merge / copy:.2f}",
        f"{row['first_call_s']:.1f} s",
    ]


def methods() -> dict[str, Plans]:
    """List the plans that are measured, by method."""

    def plain(sparse: Sparsifier | None = None, **rest: object) -> Plans:
        plan = TensorPlan(_COEFFICIENTS, sparse=(sparse,) * EXPERTS, **rest)  # type: ignore[arg-type]
        return lambda _: plan

    def ranked(shape: torch.Size) -> TensorPlan:
        rows = 1 if len(shape) == 1 else shape[0]
        knots = Table(np.tile(np.linspace(0, 4, _KNOTS, dtype=np.float32), (rows, 1)))
        masks = tuple(RankedMask(key, 0.4, 0.6, knots, rescale=True) for key in range(EXPERTS))
        return TensorPlan(_COEFFICIENTS, sparse=masks, combine=Elect())

    random = tuple(RandomMask(key, 0.5) for key in range(EXPERTS))
    elect = Elect(zero=0)
    linear = TensorPlan(_COEFFICIENTS, delta=False, base_coefficient=0.0)
    dare = TensorPlan(_COEFFICIENTS, sparse=random)
    dare_ties = TensorPlan(_COEFFICIENTS, sparse=random, combine=Elect())
    return {
        "linear": lambda _: linear,
        "task_arithmetic": plain(),
        "ties": plain(Band(1.2), combine=Elect(), normalize_by_mask=True),
        "sce": plain(gate=Variance(0.8), combine=elect, normalize_by_mask=True),
        "breadcrumbs": plain(Band(0.8, 3.0)),
        "dare_linear": lambda _: dare,
        "dare_ties": lambda _: dare_ties,
        "della": ranked,
    }


def _merger(
    plans: Plans, sources: list[Tensors], out: Tensors, n_tensors: int | None = None
) -> Callable[[], None]:
    models = list(zip(*sources, strict=True))
    jobs = [
        MergeJob(plans(buffer.shape), base, experts, buffer)
        for buffer, (base, *experts) in zip(out, models, strict=True)
    ]
    return lambda: merge_cpu(jobs[:n_tensors])


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    measure()
    print(table())
