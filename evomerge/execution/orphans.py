"""Ends what a killed driver leaves behind: some of Ray's processes look for it only now and then.

Run as a script by ``end_with_driver``, in a process that a signal to the driver's group misses.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["end_with_driver"]

_POLL_S = 0.5
_QUIET_S = 5.0  # without any of them: none is starting any more
_WRITES = os.O_WRONLY | os.O_RDWR


def end_with_driver(session: str) -> subprocess.Popen[bytes] | None:
    """Start a process that outlives this one, to kill whatever still writes into a folder then.

    Args:
        session: Folder of the logs and sockets of one Ray, and of no other.

    Returns:
        The process, to be ended by whoever ends Ray in order; ``None`` where the system does not
        tell what files are open.
    """
    if not Path("/proc/self/fdinfo").is_dir():
        return None
    script = [sys.executable, "-I", "-S", __file__, str(os.getpid()), session]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        script, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", start_new_session=True
    )


def _watch(driver: int, session: str) -> None:
    while os.getppid() == driver:
        time.sleep(_POLL_S)
    seen = time.monotonic()
    while time.monotonic() - seen < _QUIET_S:
        for pid in _writers(f"{session}{os.sep}"):
            seen = time.monotonic()
            _kill(pid)
        time.sleep(_POLL_S / 5)


def _writers(folder: str) -> Iterator[int]:
    """List the processes that have a file in a folder open for writing."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _writes(process, folder):
            yield int(process.name)


def _writes(process: Path, folder: str) -> bool:
    try:
        for link in (process / "fd").iterdir():
            if os.readlink(link).startswith(folder):
                lines = (process / "fdinfo" / link.name).read_text().splitlines()
                flags = next(line.split()[1] for line in lines if line.startswith("flags:"))
                if int(flags, 8) & _WRITES:
                    return True
    except OSError:  # it ended meanwhile, or is somebody else's
        return False
    return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2])
