"""Where things are kept between runs that can be made again."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from evomerge.errors import ConfigError

__all__ = ["cache_folder", "hold", "trim_cache"]

_LIMIT_GB = 20.0


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


def trim_cache(*rooms: str) -> None:
    """Remove the files used longest ago until the rest is within the limit.

    The limit is ``EVOMERGE_CACHE_LIMIT`` in GB, 20 by default. Files that some process holds stay.

    Args:
        rooms: What is trimmed; their files count together.

    Raises:
        ConfigError: The limit is no number.
    """
    folders = [folder for room in rooms if (folder := cache_folder(room)) is not None]
    files = [found for folder in folders for found in _files(folder)]
    excess = sum(stat.st_size for _, stat in files) - _limit_bytes()
    for file, stat in sorted(files, key=lambda item: max(item[1].st_atime, item[1].st_mtime)):
        if excess <= 0:
            return
        if _removed(file):
            excess -= stat.st_size


def hold(file: Path) -> BinaryIO:
    """Keep a file from being trimmed until the returned handle is closed or collected."""
    handle = file.open("rb")
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for file in folder.rglob("*"):
        # A lock is empty, and removed under a process that waits for it, it would let two in.
        if file.is_file() and file.suffix != ".lock":
            with contextlib.suppress(FileNotFoundError):  # another process has just moved it
                yield file, file.stat()


def _removed(file: Path) -> bool:
    with contextlib.suppress(OSError), file.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if some process holds it
        file.unlink()
        return True
    return False


def _limit_bytes() -> float:
    chosen = os.environ.get("EVOMERGE_CACHE_LIMIT") or str(_LIMIT_GB)
    try:
        return float(chosen) * 1e9
    except ValueError:
        raise ConfigError(
            f"expected a number of GB in the environment variable EVOMERGE_CACHE_LIMIT, got "
            f"{chosen!r}"
        ) from None
