"""Where base and experts are while a worker merges: the choice, and what it depends on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from evomerge.merging.quantized import QUANTIZATIONS
from evomerge.merging.sources import Sources
from evomerge.merging.spread import device_numbers

__all__ = [
    "Needs",
    "Residency",
    "choose_residency",
    "common_residency",
    "needed_bytes",
    "needed_on",
    "residency_of",
]

Residency = Literal["mapped", "resident", "streamed"]

_FOR_EVALUATION = 0.25  # of what is free: activations, keys and values, logits


@dataclass
class Needs:
    """What one device of a worker has to do with.

    Attributes:
        n_layers: Of the live model.
        source_bytes: Size of base and experts, as the kernel reads them.
        live_bytes: Size of the live model.
    """

    n_layers: int
    source_bytes: int = 0
    live_bytes: int = 0


def choose_residency(
    device_type: str, *, source_bytes: int, live_bytes: int, free_bytes: int
) -> Residency:
    """Choose where the kernel reads base and experts.

    Args:
        device_type: ``cpu`` or that of an accelerator.
        source_bytes: Size of base and experts, as the kernel reads them.
        live_bytes: Size of the live model.
        free_bytes: Memory of the device for one worker, before anything of it is there.

    Returns:
        ``mapped``: on CPU, straight from the files. ``resident``: on the device, copied once, if
        they fit beside the live model with a quarter of the free memory left for evaluation.
        ``streamed``: through pinned memory, anew for each candidate.
    """
    if device_type == "cpu":
        return "mapped"
    fits = source_bytes + live_bytes <= (1 - _FOR_EVALUATION) * free_bytes
    return "resident" if fits else "streamed"


def residency_of(
    sources: Sources,
    dtype: torch.dtype,
    devices: Sequence[torch.device],
    share: float,
    quantize: str | None = None,
) -> Residency:
    """Choose for a worker that has not put anything on its device yet.

    Args:
        sources: Models to merge.
        dtype: Of the live model.
        devices: Of the live model.
        share: Which part of the device's memory the worker may take.
        quantize: What the live model is quantized to, too.
    """
    needed = needed_on(sources, dtype, len(devices), quantize)
    free = [_free_bytes(device, share) for device in devices]
    return common_residency(devices[0].type, needed, free)


def common_residency(device_type: str, needed: Sequence[Needs], free: Sequence[int]) -> Residency:
    """Choose for several devices together; see ``choose_residency``.

    Args:
        device_type: Of all.
        needed: Of each.
        free: Memory of each for the worker.
    """
    found = {
        choose_residency(
            device_type,
            source_bytes=needs.source_bytes,
            live_bytes=needs.live_bytes,
            free_bytes=free_bytes,
        )
        for needs, free_bytes in zip(needed, free, strict=True)
    }
    return found.pop() if len(found) == 1 else "streamed"


def needed_bytes(
    sources: Sources, dtype: torch.dtype, quantize: str | None = None
) -> tuple[int, int]:
    """Tell the size of base and experts, as the kernel reads them, and that of the live model.

    Args:
        sources: Models to merge.
        dtype: Of the live model.
        quantize: What it is quantized to, too.
    """
    (needs,) = needed_on(sources, dtype, 1, quantize)
    return needs.source_bytes, needs.live_bytes


def needed_on(
    sources: Sources, dtype: torch.dtype, n_devices: int, quantize: str | None = None
) -> list[Needs]:
    """Tell what ``needed_bytes`` does for each of several devices that layers are spread over.

    Args:
        sources: Models to merge.
        dtype: Of the live model.
        n_devices: Over how many of them.
        quantize: What it is quantized to, too.
    """
    roles, sizes = sources.architecture.roles, [0] * sources.architecture.n_layers
    shapes = {name: math.prod(sources.anchor.shape(name)) for name in sources.names}
    lent = sum(math.prod(sources.anchor.shape(name)) for name in sources.lent_names)
    for name, size in shapes.items():
        if roles[name].in_layer:
            sizes[roles[name].layer] += size
    numbers = device_numbers(sizes, lent + sum(shapes.values()) - sum(sizes), n_devices)
    quantized = 0.0 if quantize is None else QUANTIZATIONS[quantize].bytes_per_weight
    found = [Needs(numbers.count(k)) for k in range(n_devices)]
    found[0].live_bytes += lent * dtype.itemsize
    for name, size in shapes.items():
        k = numbers[roles[name].layer] if roles[name].in_layer else 0
        found[k].source_bytes += sources.tensor_bytes(name)
        found[k].live_bytes += int(size * (dtype.itemsize + quantized))
    return found


def _free_bytes(device: torch.device, share: float) -> int:
    if device.type == "cpu":
        return 0  # nothing depends on it
    told = () if device.index is None else (device,)
    free, total = torch.get_device_module(device).mem_get_info(*told)
    return int(min(free, share * total))
