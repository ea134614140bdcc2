"""Where things are kept between runs that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(room: str) -> Path | None:
    """Name the folder of one kind of kept things; it need not exist.

    Args:
        room: What is kept, e.g. ``statistics``.

    Returns:
        A folder in ``EVOMERGE_CACHE``, else in evomerge below ``XDG_CACHE_HOME`` or ~/.cache;
        ``None`` if ``EVOMERGE_CACHE`` is ``off``.
    """
    chosen = os.environ.get("EVOMERGE_CACHE", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen).expanduser() / room
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "evomerge" / room
