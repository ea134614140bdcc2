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
    """Let nobody look for garbage in what is left when the process ends."""
    atexit.register(gc.freeze)
