"""Why a worker process died, as far as it has left a trace: Ray itself does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["death_reason", "is_machine_lost", "n_at_fault"]

_PID = re.compile(r"^\s*pid: (\d+)", re.MULTILINE)
_ADDRESS = re.compile(r"^\s*ip: (\S+)", re.MULTILINE)
_MACHINE_LOST = "its node has died"
_WHY_LOST = re.compile(r"the actor's node was [^:\n]*: *(\S.*)")
_SIGNAL = re.compile(r"\*\*\* (SIG[A-Z]+) received")
_MARKER = ":"  # what Ray writes for itself begins with it
_LONGEST = 300  # characters
_TAIL_BYTES = 1 << 16


def death_reason(message: str, logs: Path | None) -> str:
    """Say in one line why a worker died.

    Args:
        message: What Ray says of it.
        logs: Folder with what the workers of this machine wrote to standard error; ``None``: they
            were on others.
    """
    address = _ADDRESS.search(message)
    if is_machine_lost(message):
        machine = f"its machine, {address[1]}," if address else "its machine"
        why = f": {reason[1]}" if (reason := _WHY_LOST.search(message)) else ""
        return f"{machine} is gone or cannot be reached any more{why}"
    if (pid := _PID.search(message)) is None:
        return message.splitlines()[0] if message else "no reason given"
    process = f"process {pid[1]}" + (f" on {address[1]}" if address and logs is None else "")
    if last := _last_words(logs, pid[1]):
        return f"{process} ended with: {last}"
    return (
        f"{process} ended without a word, as it does when it exits by itself, or the system kills "
        "it (SIGKILL), say because memory runs out"
    )


def is_machine_lost(message: str) -> bool:
    """Tell whether Ray says that a worker is dead because its machine is.

    Args:
        message: What Ray says of the worker.
    """
    return _MACHINE_LOST in message


def n_at_fault(died_on: Iterable[str], alive: Iterable[str]) -> int:
    """Count the deaths that were not those of machines.

    Args:
        died_on: A machine for each death, by Ray's id.
        alive: The machines that are there.
    """
    there = set(alive)
    return sum(machine in there for machine in died_on)


def _last_words(logs: Path | None, pid: str) -> str:
    """Read the signal, or else the last line, that a process wrote before it ended."""
    files = [] if logs is None else sorted(logs.glob(f"worker-*-{pid}.err"))
    if not files:
        return ""
    text = files[-1].read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    if signals := _SIGNAL.findall(text):
        return str(signals[-1])
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and not line.startswith(_MARKER)]
    return said[-1][:_LONGEST] if said else ""
