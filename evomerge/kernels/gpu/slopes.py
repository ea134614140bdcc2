"""Sums up slopes on a GPU, with one launch for all tensors that share a structure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from evomerge.kernels.adjoint import Adjoint
from evomerge.kernels.generated import generated_function
from evomerge.kernels.gpu import arithmetic
from evomerge.kernels.gpu.merging import BLOCK, HEADER
from evomerge.kernels.gpu.segments import Segments
from evomerge.kernels.gpu.source import slope_kernel_source
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.scalars import Scalars
from evomerge.kernels.structure import Structure

__all__ = ["slopes_gpu"]


def slopes_gpu(jobs: Sequence[SlopeJob], block: int = BLOCK) -> list[Scalars]:
    """Find the slopes along the scalars of plans, with one launch for all of one structure.

    Sums over a block are float32; blocks are summed up in float64, in their order.

    Args:
        jobs: Supported by compiled kernels (``structure.has_compiled_slopes``), all on one device,
            none of them empty.
        block: Elements per block, a power of two.

    Returns:
        Slopes per job.
    """
    groups: dict[Structure, list[int]] = defaultdict(list)
    for position, job in enumerate(jobs):
        groups[Structure.of_slopes(job)].append(position)
    found: dict[int, Scalars] = {}
    for structure, positions in groups.items():
        group = [jobs[position] for position in positions]
        found.update(zip(positions, _launched(structure, group, block), strict=True))
    return [found[position] for position in range(len(jobs))]


def _launched(structure: Structure, jobs: Sequence[SlopeJob], block: int) -> list[Scalars]:
    read = [replace(job, gradient=job.gradient.contiguous()) for job in jobs]
    segments = Segments.of([job.merge for job in read], structure, block)
    names = Adjoint.of(structure).names
    sums = torch.empty((segments.n_blocks, len(names)), device=read[0].gradient.device)
    _kernel(structure)[(segments.n_blocks,)](
        sums,
        *segments.arguments,
        BLOCK=block,
        ALIGNED=segments.is_aligned,
        num_warps=8,
        enable_fp_fusion=False,
    )
    blocks = [-(-job.gradient.numel() // block) for job in read]
    first = np.cumsum([0, *blocks[:-1]])
    totals = np.add.reduceat(sums.cpu().numpy().astype(np.float64), first, axis=0)
    named = (dict(zip(names, own.tolist(), strict=True)) for own in totals)
    return [Scalars.named(own, structure.n_experts) for own in named]


@cache
def _kernel(structure: Structure) -> Any:
    # Triton keeps machine code on disk by itself.
    return generated_function(HEADER + slope_kernel_source(structure), arithmetic, "slopes")
