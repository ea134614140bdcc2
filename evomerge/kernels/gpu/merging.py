"""Merges tensors on a GPU, with one launch for all that share a structure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from evomerge.kernels.generated import generated_function
from evomerge.kernels.gpu import arithmetic
from evomerge.kernels.gpu.segments import Segments
from evomerge.kernels.gpu.source import kernel_source
from evomerge.kernels.job import MergeJob
from evomerge.kernels.structure import Structure

__all__ = ["BLOCK", "HEADER", "merge_gpu"]

BLOCK = 2048  # elements per block; eight per thread of eight warps

HEADER = """import triton
import triton.language as tl
from evomerge.kernels.gpu.arithmetic import *
"""


def merge_gpu(jobs: Iterable[MergeJob], block: int = BLOCK) -> None:
    """Merge tensors straight into existing buffers, with one launch for all of one structure.

    Arithmetic is that of ``merge_eager``: no fused multiplication and addition, exact division.

    Args:
        jobs: Supported by compiled kernels (``structure.is_supported``), all on one device.
        block: Elements per block, a power of two.
    """
    groups: dict[Structure, list[MergeJob]] = defaultdict(list)
    for job in jobs:
        if job.out.numel():
            groups[Structure.of(job)].append(job)
    for structure, group in groups.items():
        segments = Segments.of(group, structure, block)
        _kernel(structure)[(segments.n_blocks,)](
            *segments.arguments,
            BLOCK=block,
            ALIGNED=segments.is_aligned,
            num_warps=8,
            enable_fp_fusion=False,
        )


@cache
def _kernel(structure: Structure) -> Any:
    # Triton keeps machine code on disk by itself.
    return generated_function(HEADER + kernel_source(structure), arithmetic)
