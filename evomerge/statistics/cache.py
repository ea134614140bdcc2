"""Statistics on disk, found again by what the tensors hold.

A cache entry is one small file named by a hash of (arithmetic, statistic, parameters, content of
the tensors). It starts with its own name and a checksum, so a corrupt, cut-off or foreign file is
noticed and rebuilt. Files appear by atomic rename: any number of processes may write at once.
What a tensor holds is looked at once per file and remembered by (path, size, time of change).
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from evomerge.cache import cache_folder, say_unusable
from evomerge.statistics.content import Content, Origin, content_of

__all__ = ["Origin", "StatisticsCache"]

Arrays = Mapping[str, NDArray[np.generic]]

_ARITHMETIC = 2  # raise when a statistic changes in its value, its meaning or its arrays
_MAGIC = b"evomerge statistics\n"
_DIGEST = 32  # characters of a 128-bit hexadecimal hash
_INDEX_LINE = re.compile(r"(?P<digest>[0-9a-f]{32}) (?P<non_finite>\d+) (?P<label>.+)")


class StatisticsCache:
    """A folder of statistics; every failure of the disk only costs time.

    Args:
        folder: Created on the first write; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._contents: dict[str, dict[str, Content]] = {}

    @classmethod
    def default(cls) -> StatisticsCache:
        """Open the user's cache (``evomerge.cache``); its files may be deleted at any time."""
        return cls(cache_folder("statistics"))

    def load(self, statistic: str, contents: tuple[str, ...]) -> Arrays | None:
        """Read an entry.

        Args:
            statistic: Its name with its parameters.
            contents: Digests of the tensors it is about, in order.

        Returns:
            Its arrays; ``None`` if there is no such entry or it is damaged.
        """
        if self._folder is None:
            return None
        name = _entry_name(statistic, contents)
        try:
            entry = self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as err:
            say_unusable(self._folder, err)
            return None
        return _unpack(name, entry)

    def store(self, statistic: str, contents: tuple[str, ...], arrays: Arrays) -> None:
        """Write an entry; a folder that cannot be written to is logged once."""
        if self._folder is not None:
            name = _entry_name(statistic, contents)
            try:
                _write(self._path(name), _pack(name, arrays))
            except OSError as err:
                say_unusable(self._folder, err)

    def content(self, origin: Origin | None, read: Callable[[], torch.Tensor]) -> Content:
        """Look at what a tensor holds, or remember it.

        Args:
            origin: Where the tensor came from; ``None`` looks at it each time.
            read: Returns the tensor.
        """
        index = None if origin is None else self._index_path(origin)
        if origin is None or index is None:
            return content_of(read())
        known = self._known_contents(index)
        if origin.label not in known:
            content = known[origin.label] = content_of(read())
            with contextlib.suppress(OSError):
                _append(index, f"{content.digest} {content.non_finite} {origin.label}\n")
        return known[origin.label]

    def _path(self, name: str) -> Path:
        return Path(self._folder or "", name[:2], name)

    def _index_path(self, origin: Origin) -> Path | None:
        if self._folder is None:
            return None
        try:
            stats = [(file.resolve(), file.stat()) for file in origin.files]
        except OSError:
            return None
        parts = [f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}" for path, stat in stats]
        return self._folder / "contents" / _hash("\0".join(parts).encode())

    def _known_contents(self, index: Path) -> dict[str, Content]:
        if index.name not in self._contents:
            self._contents[index.name] = _read_index(index)
        return self._contents[index.name]


def _hash(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)


def _entry_name(statistic: str, contents: tuple[str, ...]) -> str:
    return _hash("\0".join([str(_ARITHMETIC), statistic, *contents]).encode())


def _pack(name: str, arrays: Arrays) -> bytes:
    payload = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    return _MAGIC + (name + _hash(payload)).encode() + payload


def _unpack(name: str, entry: bytes) -> Arrays | None:
    head = len(_MAGIC) + 2 * _DIGEST
    payload = entry[head:]
    if entry[:head] != _MAGIC + (name + _hash(payload)).encode():
        return None
    try:
        arrays: Arrays = load(payload)
    except SafetensorError:
        return None
    return arrays


def _write(path: Path, entry: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(entry)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _append(path: Path, line: str) -> None:
    """Add a line in one write, so that lines of several processes do not mix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())


def _read_index(path: Path) -> dict[str, Content]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = map(_INDEX_LINE.fullmatch, text.split("\n")[:-1])
    return {m["label"]: Content(m["digest"], int(m["non_finite"])) for m in lines if m}
