"""Python's search for garbage, which takes longer than making a million records does."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["end_without_collecting", "without_collecting"]


@contextmanager
def without_collecting() -> Iterator[None]:
    """Let nobody look for garbage inside the block, which makes none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def end_without_collecting() -> None:
    """Leave what is there when the process ends to the system: nobody takes it apart.

    For commands that only read: what a file, other than stdout, has not flushed by then is lost.
    """
    atexit.register(_leave)


def _leave() -> None:
    everything = gc.get_objects()
    everything.append(everything)  # in a cycle it stays, as nobody looks for cycles any more
    gc.freeze()
