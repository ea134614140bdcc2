"""Where things are kept between runs that can be made again."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from evomerge.errors import ConfigError

__all__ = [
    "cache_folder",
    "cache_id",
    "hold",
    "hold_room",
    "read_entry",
    "say_unusable",
    "trim_cache",
    "write_entry",
]

_log = logging.getLogger(__name__)

_said: set[str] = set()  # reasons that were logged

_LIMIT_GB = 20.0
_HELD = "held.lock"  # in a room
_CHECKSUM = 16  # bytes at the start of an entry


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


def cache_id() -> str | None:
    """Name the user's cache: the same on all machines that share it, another on any other.

    Returns:
        ``None`` if there is none, or it cannot be written to.
    """
    folder = cache_folder("")
    if folder is None:
        return None
    made, kept = folder / f".id-{uuid.uuid4().hex}", folder / "id"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made.write_text(made.name)
        with contextlib.suppress(FileExistsError):
            os.link(made, kept)  # the first one to do so names it
        made.unlink()
        return kept.read_text()
    except OSError as err:
        say_unusable(folder, err)
        return None


def trim_cache(*rooms: str) -> None:
    """Remove the files used longest ago until the rest is within the limit.

    The limit is ``EVOMERGE_CACHE_LIMIT`` in GB, 20 by default. Files and rooms that some process
    holds stay.

    Args:
        rooms: What is trimmed; their files count together.

    Raises:
        ConfigError: The limit is no number.
    """
    folders = [folder for room in rooms if (folder := cache_folder(room)) is not None]
    files = [found for folder in folders for found in _files(folder)]
    held = [folder for folder in folders if _is_held(folder)]
    excess = sum(stat.st_size for _, stat in files) - _limit_bytes()
    for file, stat in sorted(files, key=lambda item: max(item[1].st_atime, item[1].st_mtime)):
        if excess <= 0:
            return
        if not any(map(file.is_relative_to, held)) and _removed(file):
            excess -= stat.st_size


def hold(file: Path) -> BinaryIO:
    """Keep a file from being trimmed until the returned handle is closed or collected."""
    handle = file.open("rb")
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def hold_room(folder: Path) -> BinaryIO:
    """Keep all files of a room from being trimmed: one handle, however many there are.

    Args:
        folder: As ``cache_folder`` names it; created if needed.

    Returns:
        See ``hold``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = (folder / _HELD).open("a+b")
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def read_entry(file: Path) -> bytes | None:
    """Read what ``write_entry`` kept; a damaged entry is removed.

    Returns:
        ``None`` if nothing is kept there, or nothing that can be read.
    """
    try:
        entry = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        say_unusable(file.parent, err)
        return None
    content = entry[_CHECKSUM:]
    if entry[:_CHECKSUM] == _checksum(file, content):
        return content
    with contextlib.suppress(OSError):
        file.unlink()
    return None


def write_entry(file: Path, content: bytes) -> None:
    """Keep a small file with a checksum, whole or not at all; a failure of the disk is logged."""
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(_checksum(file, content) + content)
            partial.replace(file)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    except OSError as err:
        say_unusable(file.parent, err)


def say_unusable(folder: Path, err: Exception) -> None:
    """Log that a cache is of no use, once per process and reason; whoever asks it goes on without.

    Args:
        folder: Where it failed.
        err: Why.
    """
    reason = getattr(err, "strerror", None) or " ".join(str(err).split())
    if reason not in _said:
        _said.add(reason)
        _log.warning("the cache in %s is not used: %s", folder, reason)


def _checksum(file: Path, content: bytes) -> bytes:
    """Of the name, too: an entry under another one's name is a damaged one."""
    return xxhash.xxh3_128_digest(file.name.encode() + b"\0" + content)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for file in folder.rglob("*"):
        # A lock is empty, and removed under a process that waits for it, it would let two in.
        if file.is_file() and file.suffix != ".lock":
            with contextlib.suppress(OSError):  # another process has just moved it
                yield file, file.stat()


def _is_held(folder: Path) -> bool:
    """Tell whether some process holds a room."""
    try:
        with (folder / _HELD).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody ever has
        return False
    return False


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
