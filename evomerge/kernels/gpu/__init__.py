"""The one pass on a GPU, compiled by Triton: one launch merges all tensors of one structure.

Members:
    merging: ``merge_gpu``; one launch for all jobs of one structure.
    slopes: ``slopes_gpu``; the same for slopes.
    segments: the tables that tell each block which tensor it works on.
    source: a plan's structure as the source text of a kernel.
    arithmetic: 16-bit floats, hash and selection, as the kernel's helpers.
"""

from evomerge.kernels.gpu.merging import merge_gpu
from evomerge.kernels.gpu.slopes import slopes_gpu

__all__ = ["merge_gpu", "slopes_gpu"]
