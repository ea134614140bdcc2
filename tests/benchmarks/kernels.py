"""Speed of the CPU kernel against the copy bandwidth of the machine, both measured in one run.

Run with ``python -m tests.benchmarks.kernels``: about a minute, 2 GB.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from evomerge.kernels.cpu import merge_cpu
from evomerge.kernels.job import Job
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
from tests.benchmarks.shapes import EXPERTS, random_tensors

__all__ = ["Row", "run"]

_REPEATS = 15
_KNOTS = 8  # per row, as the methods ask for
_COEFFICIENTS = (0.4, 0.3, 0.5)

Tensors = list[torch.Tensor]
Plans = Callable[[torch.Size], TensorPlan]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        method: What was merged.
        seconds: Best of several merges of all tensors into reused buffers.
        gigabytes_per_second: Bytes that must be read and written, over that time.
        ratio: The time that a copy of these bytes takes, over that time; 1 is the memory's speed.
        compile_seconds: First call for this structure, without any cache.
    """

    method: str
    seconds: float
    gigabytes_per_second: float
    ratio: float
    compile_seconds: float


def run() -> list[Row]:
    """Measure every method on a 110M-parameter Llama, base and three experts, bfloat16.

    Copies and merges alternate, and the best of each counts: other load on the machine disturbs
    single repeats, not the ratio.
    """
    sources = [random_tensors(seed) for seed in range(EXPERTS + 1)]
    out = [torch.zeros_like(tensor) for tensor in sources[0]]
    return [
        _row(name, _merger(plans, sources, out, 1), _merger(plans, sources, out), sources[0], out)
        for name, plans in _methods().items()
    ]


def _row(
    name: str, first: Callable[[], None], merge: Callable[[], None], source: Tensors, out: Tensors
) -> Row:
    def copy() -> None:
        for buffer, tensor in zip(out, source, strict=True):
            buffer.copy_(tensor)

    compile_seconds = _seconds(first)
    copies, merges = zip(*[(_seconds(copy), _seconds(merge)) for _ in range(_REPEATS)], strict=True)
    n_bytes = sum(tensor.nbytes for tensor in out)
    copy_speed = 2 * n_bytes / min(copies)
    speed = (EXPERTS + (1 if name == "linear" else 2)) * n_bytes / min(merges)
    return Row(name, min(merges), speed / 1e9, speed / copy_speed, compile_seconds)


def _methods() -> dict[str, Plans]:
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
        Job(plans(buffer.shape), base, experts, buffer)
        for buffer, (base, *experts) in zip(out, models, strict=True)
    ]
    return lambda: merge_cpu(jobs[:n_tensors])


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    n = sum(tensor.numel() for tensor in random_tensors(0))
    print(f"{n / 1e6:.0f}M parameters, base + {EXPERTS} experts, {torch.get_num_threads()} threads")
    print(f"{'method':16} {'seconds':>8} {'GB/s':>6} {'of copy':>8} {'first call':>11}")
    for row in run():
        print(
            f"{row.method:16} {row.seconds:8.4f} {row.gigabytes_per_second:6.1f} "
            f"{row.ratio:8.2f} {row.compile_seconds:9.2f} s"
        )


if __name__ == "__main__":
    main()
