"""Base and experts that do not fit on a device pass through it, tensor after tensor.

Two stages take turns. While the device merges what one stage holds, the next tensors are copied
into the other: by the host from the files into pinned memory, from there by a stream of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import cycle

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import MergeJob
from evomerge.merging.batches import in_batches
from evomerge.merging.lowering import PlannedTensor
from evomerge.merging.sources import Sources

__all__ = ["StreamedFeed", "stage_size"]

_STAGE_BYTES = 256 << 20
_ALIGNMENT = 256  # bytes, of every tensor in a stage


class StreamedFeed:
    """Merges tensors whose sources are in files, on a device that cannot hold them all; a ``Feed``.

    Memory: two stages, on the device and pinned on the host; each holds one batch of tensors of
    base and experts, at least the largest.

    Args:
        sources: Models to merge.
        device: Of the outputs; its current stream merges.
        stage_bytes: Size of a stage, unless some tensor needs more.
    """

    def __init__(
        self, sources: Sources, device: torch.device, stage_bytes: int = _STAGE_BYTES
    ) -> None:
        self._sources = sources
        self._backend = torch.get_device_module(device)
        self._copying = self._backend.Stream()
        self._stage_bytes = stage_size(sources, stage_bytes)
        self._stages = [_Stage(self._stage_bytes, device) for _ in range(2)]

    def __call__(self, tensors: Iterable[PlannedTensor]) -> None:
        """Queue the merge of tensors; outputs are complete when the device has caught up."""
        merging: list[PlannedTensor] = []
        for planned in tensors:
            if planned.plan.prepared is None:
                merging.append(planned)
            else:
                self._merge_alone(planned)
        need = partial(_need, self._sources)
        batches = in_batches(merging, lambda planned: need(planned.name), self._stage_bytes)
        for stage, batch in zip(cycle(self._stages), batches, strict=False):
            self._merge(stage, batch)

    def _merge(self, stage: _Stage, batch: Sequence[PlannedTensor]) -> None:
        merging = self._backend.current_stream()
        stage.copied.synchronize()  # the host may overwrite what has been copied
        stage.clear()
        jobs = [self._staged(stage, planned) for planned in batch]
        with self._backend.stream(self._copying):
            self._copying.wait_event(stage.merged)  # the copy may overwrite what has been merged
            stage.copy()
            stage.copied.record(self._copying)
        merging.wait_event(stage.copied)
        merge_all(jobs)
        stage.merged.record(merging)

    def _merge_alone(self, planned: PlannedTensor) -> None:
        """Merge prepared task vectors, which may be larger than what a stage is made for."""
        device = planned.out.device
        base, vectors = self._sources.tensors(planned.name, planned.plan.prepared)
        there = [vector.to(device) for vector in vectors]
        merge_all(
            [MergeJob(planned.plan, None if base is None else base.to(device), there, planned.out)]
        )

    def _staged(self, stage: _Stage, planned: PlannedTensor) -> MergeJob:
        base, experts = self._sources.tensors(planned.name)
        staged_base = None if base is None or not planned.plan.reads_base else stage.put(base)
        staged = [stage.put(expert) for expert in experts]
        return MergeJob(planned.plan, staged_base, staged, planned.out)


def stage_size(sources: Sources, stage_bytes: int = _STAGE_BYTES) -> int:
    """Tell the bytes of one of the two stages, which are on the device and pinned on the host.

    Args:
        sources: Models to merge.
        stage_bytes: As of ``StreamedFeed``.
    """
    needs = [_need(sources, name) for name in sources.names]
    return max(*needs, min(stage_bytes, sum(needs)))


def _need(sources: Sources, name: str) -> int:
    """Bytes of a stage that one tensor of all models may take."""
    return sources.tensor_bytes(name) + _ALIGNMENT * len(sources.models)


class _Stage:
    """A buffer on the host with its copy on the device."""

    def __init__(self, n_bytes: int, device: torch.device) -> None:
        backend = torch.get_device_module(device)
        is_pinned = device.type != "cpu"
        self._host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=is_pinned)
        self._device = torch.empty(n_bytes, dtype=torch.uint8, device=device)
        self._used = 0
        self.copied, self.merged = backend.Event(), backend.Event()

    def clear(self) -> None:
        """Start anew."""
        self._used = 0

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Write a tensor on the host; return where it will be on the device."""
        part = slice(self._used, self._used + tensor.nbytes)
        self._used = -(-part.stop // _ALIGNMENT) * _ALIGNMENT
        self._host[part].copy_(tensor.reshape(-1).view(torch.uint8))
        return self._device[part].view(tensor.dtype).view(tensor.shape)

    def copy(self) -> None:
        """Queue the copy to the device on the current stream."""
        self._device[: self._used].copy_(self._host[: self._used], non_blocking=True)
