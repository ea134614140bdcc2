"""Commands in processes of their own, forked, so that none waits for imports; and their end.

What a driver starts carries a mark in its environment, by which it is found when it must end: the
workers of Ray, and Ray itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from evomerge.execution.remote import RemoteWorker
from tests.chaos.points import NOWHERE, Point, Writes

__all__ = ["Driver"]

_MARK = "EVOMERGE_CHAOS"
_WORKER = f"ray::{RemoteWorker.__name__}"  # as Ray calls the process


class Driver:
    """One command that runs a study.

    Args:
        arguments: Of the command line.
        log: File that what it says is added to.
        folder: Of the study, whose writes count.
        point: Where the process ends by itself.
    """

    def __init__(
        self, arguments: tuple[object, ...], log: Path, folder: Path, point: Point = NOWHERE
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._status: int | None = None
        self._counts = log.with_suffix(".writes")
        self.pid = os.fork()
        if self.pid == 0:
            self._live(arguments, log, folder, point)

    def _live(self, arguments: tuple[object, ...], log: Path, folder: Path, point: Point) -> None:
        try:
            os.setsid()
            os.environ[_MARK] = self._mark
            said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(said, stream)
            writes = Writes(folder, point)
            writes.watch()
            status = _command(arguments)
            self._counts.write_text(str(writes.n))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def status(self, timeout_s: float) -> int | None:
        """Wait for the end: exit status, negative of a signal; ``None`` if it has not come."""
        deadline = time.monotonic() + timeout_s
        while self._status is None and time.monotonic() < deadline:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.02)
        return self._status

    @property
    def n_writes(self) -> int:
        """How much a driver wrote that ended well."""
        return int(self._counts.read_text())

    def workers(self) -> list[int]:
        """List the processes of workers."""
        return [pid for pid in self._marked() if _name(pid).startswith(_WORKER)]

    def kill(self, *, group: bool = False) -> None:
        """Kill the driver, or its process group."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)

    def clear(self) -> int:
        """Kill what outlives the driver, if anything does; return how many processes did."""
        left = [pid for pid in self._marked() if pid != self.pid]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(left)

    def _marked(self) -> Iterator[int]:
        mark = f"{_MARK}={self._mark}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _command(arguments: tuple[object, ...]) -> int:
    from evomerge.cli import main as cli

    sys.argv = ["evomerge", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""
