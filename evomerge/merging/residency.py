"""Where base and experts are while a worker merges: the choice, and what it depends on."""

from __future__ import annotations

import math
from typing import Literal

import torch

from evomerge.merging.sources import Sources

__all__ = ["Residency", "choose_residency", "needed_bytes", "residency_of"]

Residency = Literal["mapped", "resident", "streamed"]

_FOR_EVALUATION = 0.25  # of what is free: activations, keys and values, logits


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
    sources: Sources, dtype: torch.dtype, device: torch.device, share: float
) -> Residency:
    """Choose for a worker that has not put anything on its device yet.

    Args:
        sources: Models to merge.
        dtype: Of the live model.
        device: Of the live model.
        share: Which part of the device's memory the worker may take.
    """
    source_bytes, live_bytes = needed_bytes(sources, dtype)
    return choose_residency(
        device.type,
        source_bytes=source_bytes,
        live_bytes=live_bytes,
        free_bytes=_free_bytes(device, share),
    )


def needed_bytes(sources: Sources, dtype: torch.dtype) -> tuple[int, int]:
    """Tell the size of base and experts, as the kernel reads them, and that of the live model.

    Args:
        sources: Models to merge.
        dtype: Of the live model.
    """
    names = (*sources.names, *sources.lent_names)
    n_parameters = sum(math.prod(sources.anchor.shape(name)) for name in names)
    return sum(map(sources.tensor_bytes, sources.names)), n_parameters * dtype.itemsize


def _free_bytes(device: torch.device, share: float) -> int:
    if device.type == "cpu":
        return 0  # nothing depends on it
    free, total = torch.get_device_module(device).mem_get_info()
    return int(min(free, share * total))
