"""The one pass on CPU, compiled by numba: a single pass straight into the buffer.

Members:
    merging: ``merge_cpu``; splits tensors over threads.
    slopes: ``slopes_cpu``; the same for slopes.
    source: a plan's structure as the source text of a loop.
    arithmetic: bfloat16, float16, hash and selection, as the loop's helpers.
    compiling: source text to a compiled function, kept on disk between processes.
"""

from evomerge.kernels.cpu.merging import merge_cpu
from evomerge.kernels.cpu.slopes import slopes_cpu

__all__ = ["merge_cpu", "slopes_cpu"]
