"""Source text of a loop to a compiled function, kept on disk between processes.

The compiler trusts what it finds on disk, so a seal beside it says what it wrote: machine code
without its seal is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba

from evomerge.cache import read_entry, say_unusable, write_entry
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
    return _kept_or_made(loop_source(structure), "merge")


@cache
def compiled_slope_loop(structure: Structure) -> Loop:
    """Return the loop that sums up slopes for a structure (``Structure.of_slopes``)."""
    return _kept_or_made(slope_loop_source(structure), "slopes")


def _kept_or_made(source: str, name: str) -> Loop:
    function = generated_function(_HEADER + source, arithmetic, name)
    if not is_kept(function):
        return _compiled(function, on_disk=False)
    _drop_unsealed(Path(function.__code__.co_filename))
    try:
        return _sealed(function, _compiled(function, on_disk=True))
    except RuntimeError as err:  # no folder that the compiler may write into
        say_unusable(Path(function.__code__.co_filename).parent, err)
        return _compiled(function, on_disk=False)


def _compiled(function: Loop, *, on_disk: bool) -> Loop:
    # Division by zero gives infinity, as in torch; no reassociation, so results do not depend on
    # how the loop is vectorised.
    compiled = numba.njit(nogil=True, error_model="numpy", cache=on_disk)(function)
    loop: Loop = compiled
    return loop


def _sealed(function: Loop, loop: Loop) -> Loop:
    """Seal machine code as the compiler writes it; without the disk if that fails."""
    source = Path(function.__code__.co_filename)
    in_memory: list[Loop] = []
    known = 0

    def run(*arguments: object) -> None:
        nonlocal known
        try:
            (in_memory or [loop])[0](*arguments)
        except OSError as err:  # of loading or keeping: the loop itself opens nothing
            say_unusable(source.parent, err)
            in_memory.append(_compiled(function, on_disk=False))
            in_memory[0](*arguments)
        if known != (known := len(loop.signatures)):  # type: ignore[attr-defined]
            write_entry(_seal(source), _checksum(source))

    return run


def _drop_unsealed(source: Path) -> None:
    code = _machine_code(source)
    if code and read_entry(_seal(source)) != _checksum(source):
        for file in code:
            with contextlib.suppress(OSError):
                file.unlink()


def _seal(source: Path) -> Path:
    return source.with_suffix(".seal")


def _machine_code(source: Path) -> list[Path]:
    """List what the compiler keeps of a module, and nothing that it is about to write."""
    found = source.parent.glob(f"__pycache__/{source.stem}.*")
    return sorted(file for file in found if file.suffix in (".nbi", ".nbc"))


def _checksum(source: Path) -> bytes:
    found = hashlib.sha256()
    with contextlib.suppress(OSError):  # removed meanwhile: then no seal fits
        for file in _machine_code(source):
            found.update(file.name.encode() + file.read_bytes())
    return found.digest()
