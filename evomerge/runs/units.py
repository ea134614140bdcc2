"""Sizes as people read them."""

from __future__ import annotations

import math

__all__ = ["bytes_text"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def bytes_text(n_bytes: float) -> str:
    """Write a size with three digits, e.g. ``4.08 MB``."""
    power = min(int(math.log10(max(n_bytes, 1)) // 3), len(_UNITS) - 1)
    return f"{n_bytes / 1000**power:.3g} {_UNITS[power]}"
