"""Source text of a loop to a compiled function, kept on disk between processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba

from evomerge.kernels.cpu import arithmetic
from evomerge.kernels.cpu.source import loop_source, slope_loop_source
from evomerge.kernels.generated import generated_function, is_kept
from evomerge.kernels.structure import Structure

__all__ = ["Loop", "compiled_loop", "compiled_slope_loop"]

Loop = Callable[..., None]

_HEADER = """import numpy as np
from evomerge.kernels.cpu.arithmetic import *

u32 = np.uint32

"""


@cache
def compiled_loop(structure: Structure) -> Loop:
    """Return the loop for a structure; machine code is made by its first call, or loaded."""
    return _compiled(loop_source(structure), "merge")


@cache
def compiled_slope_loop(structure: Structure) -> Loop:
    """Return the loop that sums up slopes for a structure (``Structure.of_slopes``)."""
    return _compiled(slope_loop_source(structure), "slopes")


def _compiled(source: str, name: str) -> Loop:
    function = generated_function(_HEADER + source, arithmetic, name)
    # Division by zero gives infinity, as in torch; no reassociation, so results do not depend on
    # how the loop is vectorised.
    loop: Loop = numba.njit(function, nogil=True, error_model="numpy", cache=is_kept(function))
    return loop
