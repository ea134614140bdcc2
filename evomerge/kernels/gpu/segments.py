"""The tables that tell each block of a launch which elements of which tensor it merges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.kernels.job import Job
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
    def of(cls, jobs: Sequence[Job], structure: Structure, block: int) -> Segments:
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
        blocks = -(-sizes[:, 0] // block)
        arguments = (
            np.repeat(np.arange(len(jobs), dtype=np.int32), blocks),
            (np.cumsum(blocks) - blocks).astype(np.int32),
            sizes,
            addresses,
            np.stack([n.each for n in numbers]),
            np.stack([n.shared for n in numbers]),
            np.stack([n.keys for n in numbers]).astype(np.int64),
        )
        n_streams = addresses.shape[1] - len(structure.tables)
        return cls(
            arguments=tuple(_on(array, device) for array in arguments),
            n_blocks=int(blocks.sum()),
            is_aligned=not (np.any(addresses[:, :n_streams] % 16) or np.any(sizes[:, 0] % 16)),
            buffers=tuple(buffer for row in rows for buffer in row),
        )


def _buffers(job: Job, numbers: Numbers, structure: Structure) -> list[torch.Tensor]:
    base = [job.base] if job.base is not None and structure.base else []
    tables = [_on(table, job.out.device) for table in numbers.tables]
    return [job.out, *(t.contiguous() for t in (*base, *job.experts)), *tables]


def _on(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
