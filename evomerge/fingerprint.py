"""What files and data hold, in short; a file is read once, and remembered while it stays untouched.

A file is known again by its real path, size, inode and times of change (the content's and the
system's own, which no program can set back): then it is not read. Any other file is hashed, at the
speed of the disk, and remembered in the user's cache (room ``fingerprints``).
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from pathlib import Path

import xxhash

from evomerge.cache import cache_folder, read_entry, write_entry

__all__ = ["digest_of", "fingerprint", "stamp"]

_BLOCK = 1 << 24  # bytes read at once
_SETTLED_S = 2.0  # a file written to within a tick of its clock looks untouched


def digest_of(*parts: object) -> str:
    """Name anything that JSON can hold, by its content; functions by name, others by their text.

    Returns:
        32 hexadecimal digits (BLAKE2b).
    """
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    """Write what JSON cannot hold without addresses in memory, which differ from run to run."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return str(value)


def fingerprint(*files: Path) -> str:
    """Name what files hold, wherever they are.

    Args:
        files: In an order that matters.

    Returns:
        32 hexadecimal digits (XXH3), the same for the same bytes.

    Raises:
        OSError: A file cannot be read.
    """
    return xxhash.xxh3_128_hexdigest("\n".join(map(_digest, files)).encode())


def stamp(*files: Path) -> str:
    """Name the state of some files without reading them.

    Args:
        files: In an order that matters.

    Returns:
        32 hexadecimal digits that change when a file is moved, replaced or written to.

    Raises:
        OSError: A file is not there.
    """
    return xxhash.xxh3_128_hexdigest("\n".join(map(_state, files)).encode())


def _state(file: Path) -> str:
    found = (real := file.resolve()).stat()
    numbers = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return "\0".join([str(real), *map(str, numbers)])


def _digest(file: Path) -> str:
    folder, before = cache_folder("fingerprints"), stamp(file)
    known = None if folder is None else read_entry(folder / before)
    if known is not None:
        return known.decode()
    digest = _hashed(file)
    if folder is not None and _is_settled(file) and stamp(file) == before:
        write_entry(folder / before, digest.encode())
    return digest


def _hashed(file: Path) -> str:
    found = xxhash.xxh3_128()
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _is_settled(file: Path) -> bool:
    found = file.stat()
    return time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED_S
