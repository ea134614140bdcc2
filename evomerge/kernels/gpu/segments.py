"""The tables that tell each block of a launch which elements of which tensor it merges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.kernels.job import MergeJob
from evomerge.kernels.numbers import Numbers
from evomerge.kernels.structure import Structure

__all__ = ["Segments"]


@dataclass(frozen=True)
class Segments:
    """Arguments of one launch, on the device, and what must stay alive until it was queued.

    Attributes:
        arguments: tensor_of_block, first_block, sizes (tensors, 2), addresses, each, shared, keys.
        n_blocks: Blocks in the launch.
        is_aligned: Whether all addresses are multiples of 16 bytes and all sizes of 16 elements.
        buffers: The tensors that ``addresses`` point to.
    """

    arguments: tuple[torch.Tensor, ...]
    n_blocks: int
    is_aligned: bool
    buffers: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, jobs: Sequence[MergeJob], structure: Structure, block: int) -> Segments:
        """Lay out jobs of one structure.

        Args:
            jobs: Of ``structure``, none of them empty.
            structure: Of all plans.
            block: Elements per block.
        """
        device = jobs[0].out.device
        numbers = [Numbers.of(job.plan) for job in jobs]
        rows = [_buffers(job, n, structure) for job, n in zip(jobs, numbers, strict=True)]
        sizes = np.array([(job.out.numel(), job.columns) for job in jobs], np.int64)
        addresses = np.array([[buffer.data_ptr() for buffer in row] for row in rows], np.int64)
        blocks = _Blocks.of(tuple(sizes[:, 0].tolist()), block, device)
        numbered = (
            sizes,
            addresses,
            np.stack([n.each for n in numbers]),
            np.stack([n.shared for n in numbers]),
            np.stack([n.keys for n in numbers]).astype(np.int64),
        )
        n_streams = addresses.shape[1] - len(structure.tables)
        return cls(
            arguments=(*blocks.arguments, *(_on(array, device) for array in numbered)),
            n_blocks=blocks.n_blocks,
            is_aligned=not (np.any(addresses[:, :n_streams] % 16) or np.any(sizes[:, 0] % 16)),
            buffers=tuple(buffer for row in rows for buffer in row),
        )


@dataclass(frozen=True)
class _Blocks:
    """The part of the tables that depends on sizes only: large, and the same for most candidates.

    Attributes:
        arguments: tensor_of_block, first_block.
        n_blocks: Blocks in the launch.
    """

    arguments: tuple[torch.Tensor, torch.Tensor]
    n_blocks: int

    @staticmethod
    @lru_cache(maxsize=16)
    def of(sizes: tuple[int, ...], block: int, device: torch.device) -> _Blocks:
        blocks = -(-np.array(sizes, np.int64) // block)
        tensor_of_block = np.repeat(np.arange(len(sizes), dtype=np.int32), blocks)
        first_block = (np.cumsum(blocks) - blocks).astype(np.int32)
        arguments = _on(tensor_of_block, device), _on(first_block, device)
        return _Blocks(arguments, int(blocks.sum()))


def _buffers(job: MergeJob, numbers: Numbers, structure: Structure) -> list[torch.Tensor]:
    base = [job.base] if job.base is not None and structure.base else []
    tables = [_on(table, job.out.device) for table in numbers.tables]
    return [job.out, *(t.contiguous() for t in (*base, *job.experts)), *tables]


def _on(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Queue a copy to the device; memory that is not pinned would wait for what is queued."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
