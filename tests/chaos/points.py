"""Exact crash points: every change of a folder's files that waits for the disk, or renames."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["KILLED", "MOMENTS", "NOWHERE", "Moment", "Point", "Writes"]

KILLED = 9  # exit status
Moment = Literal["before", "torn", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "torn", "after")


@dataclass(frozen=True)
class Point:
    """Where a process ends.

    Attributes:
        n: Of the writes, counted from 1; 0: never.
        moment: Before the write, after it, or with half of the file's new bytes on disk, as a
            machine without power leaves it.
    """

    n: int = 0
    moment: Moment = "before"


NOWHERE = Point()


class Writes:
    """Counts what this process writes into a folder, and ends it at one of the writes.

    Args:
        folder: Writes elsewhere do not count.
        point: Where to end.
    """

    def __init__(self, folder: Path, point: Point = NOWHERE) -> None:
        self._folder, self._point, self.n = str(folder.resolve()), point, 0
        self._sizes: dict[str, int] = {}  # of what is on disk, by file

    def watch(self) -> None:
        """Count from now on."""
        os.fsync = self._counted(os.fsync, _name_of)
        for name in ("replace", "rename"):
            setattr(os, name, self._counted(getattr(os, name), lambda source, *_: str(source)))
        os.unlink = self._counted(os.unlink, lambda path, **_: str(path))

    def _counted(self, write: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def count_and_write(*args: Any, **kwargs: Any) -> Any:
            path = os.path.realpath(name(*args, **kwargs))
            if not path.startswith(self._folder):
                return write(*args, **kwargs)
            self.n += 1
            is_it, moment = self.n == self._point.n, self._point.moment
            if is_it and moment == "torn":
                self._tear(path)
            if is_it and moment != "after":
                os._exit(KILLED)
            done = write(*args, **kwargs)
            if is_it:
                os._exit(KILLED)
            self._sizes[path] = os.path.getsize(path) if os.path.exists(path) else 0
            return done

        return count_and_write

    def _tear(self, path: str) -> None:
        """Leave half of what was added since the last wait for the disk."""
        if os.path.isfile(path):
            before = self._sizes.get(path, 0)
            os.truncate(path, before + (os.path.getsize(path) - before) // 2)


def _name_of(file: Any) -> str:
    number = file if isinstance(file, int) else file.fileno()
    return os.readlink(f"/proc/self/fd/{number}")
