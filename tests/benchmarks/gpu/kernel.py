"""Bytes per second of the merge kernel on a 7B-shaped set that is resident on the device.

They are set against a copy within the device, measured between the merges; a pass over a base and
three experts reads four models and writes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.gpu import merge_gpu
from evomerge.kernels.job import MergeJob
from evomerge.statistics.collect import measure
from evomerge.statistics.tensor import TensorStatistics
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.shapes import LARGE, Tensors, flat_tensors, sizes
from tests.benchmarks.kernels import Plans, methods
from tests.benchmarks.shapes import EXPERTS

__all__ = ["Resident", "run"]

_OF_COPY = {
    "linear": 0.8,
    "task_arithmetic": 0.8,
    "ties": 0.6,
    "sce": 0.6,
    "breadcrumbs": 0.6,
    "della": 0.25,
}
_CANDIDATE_MS = {"H200": 25.0, "H100": 45.0}  # of task arithmetic, all queuing included
_ROOM = 0.85  # of the free memory
_STATISTICS = ("magnitudes", "variance", "rank_knots")  # of TIES, SCE and DELLA


@dataclass(frozen=True)
class Resident:
    """Base, experts and one more model on the device.

    Attributes:
        flats: The buffers they are in, one per model, the additional one last.
        models: Their tensors, likewise.
        layers: Decoder layers, as many as fit.
        is_whole: Whether that is all layers.
    """

    flats: list[torch.Tensor]
    models: list[Tensors]
    layers: int
    is_whole: bool

    @classmethod
    def of(cls, bench: Bench) -> Resident:
        """Draw as much of five models of 7B parameters as fits."""
        shape, n_models = LARGE[bench.is_dry], EXPERTS + 2
        layers = shape.layers
        if not bench.is_dry:
            room = _ROOM * torch.cuda.mem_get_info()[0] / (2 * n_models)
            ends, all_layers = (_n(sizes(shape, n)) for n in (0, layers))
            layers = min(layers, int((room - ends) * layers / (all_layers - ends)))
        shapes = sizes(shape, layers)
        flats, models = zip(
            *[flat_tensors(shapes, bench.device) for _ in range(n_models)], strict=True
        )
        return cls(list(flats), list(models), layers, layers == shape.layers)

    @property
    def n_bytes(self) -> int:
        """Size of one model."""
        return sum(tensor.nbytes for tensor in self.models[0])

    def copy(self) -> None:
        """Copy the base over the additional model."""
        self.flats[-1].copy_(self.flats[0])

    def copy_rate(self, bench: Bench) -> float:
        """Measure bytes read and written per second by a copy."""
        return 2 * self.flats[0].nbytes / bench.device_s(self.copy)


def run(bench: Bench) -> None:
    """Measure each method, then the statistics that the methods ask for."""
    resident = Resident.of(bench)
    note = f"{resident.n_bytes / 2e9:.3g}B parameters each, {resident.layers} layers"
    bench.measured("size of one model", resident.n_bytes / 1e9, "GB", note=note)
    for name, plans in list(methods().items())[:: 4 if bench.is_dry else 1]:
        with bench.part(name):
            _measure(bench, resident, name, plans)
    with bench.part("statistics"):
        _measure_statistics(bench, resident)


def _measure(bench: Bench, resident: Resident, name: str, plans: Plans) -> None:
    *sources, out = resident.models
    jobs = [
        MergeJob(plans(buffer.shape), base, experts, buffer)
        for buffer, base, *experts in zip(out, *sources, strict=True)
    ]

    def merge() -> None:
        _merge(bench, jobs)

    bench.measured(f"{name}: first call, compiles", bench.wall_s(merge, repeats=1), "s")
    copy = resident.copy_rate(bench)
    merged_s, wall_s = bench.device_s(merge), bench.wall_s(merge)
    copy = max(copy, resident.copy_rate(bench))
    rate = (EXPERTS + (1 if name == "linear" else 2)) * resident.n_bytes / merged_s
    note = f"{rate / 1e9:.0f} of {copy / 1e9:.0f} GB/s"
    bench.measured(f"{name}: of the copy", rate / copy, at_least=_OF_COPY.get(name), note=note)
    at_most = _most_ms(bench, resident) if name == "task_arithmetic" else None
    note = f"{1000 * merged_s:.1f} ms of it on the device"
    bench.measured(f"{name}: a candidate", 1000 * wall_s, "ms", at_most=at_most, note=note)


def _most_ms(bench: Bench, resident: Resident) -> float | None:
    if bench.is_dry or not resident.is_whole:
        return None
    name = torch.cuda.get_device_name()
    return next((most for part, most in _CANDIDATE_MS.items() if part in name), None)


def _merge(bench: Bench, jobs: Sequence[MergeJob]) -> None:
    if bench.is_dry:
        merge_gpu(jobs, block=128)  # in the interpreter
    else:
        merge_all(jobs)


def _measure_statistics(bench: Bench, resident: Resident) -> None:
    """Statistics are computed on the CPU: of one layer's largest tensor, and by share of all."""
    sources = [model[5].cpu() for model in resident.models[:-1]]  # the first of the feed-forward
    share = resident.n_bytes / sources[0].nbytes
    for name in _STATISTICS:
        statistics = TensorStatistics(sources[0], sources[1:])
        measure(TensorStatistics(*_small(sources)), [name])  # compiles
        seconds = bench.wall_s(lambda s=statistics, n=name: measure(s, [n]), repeats=1)
        note = f"one tensor took {seconds:.2f} s; times {share:.0f}"
        bench.measured(f"statistics of the set: {name}", seconds * share, "s", note=note)


def _small(sources: Tensors) -> tuple[torch.Tensor, Tensors]:
    base, *experts = (tensor[:64].clone() for tensor in sources)
    return base, experts


def _n(shapes: list[tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)
