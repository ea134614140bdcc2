"""Why a worker process died, as far as it has left a trace: Ray itself does not say."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["death_reason"]

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
    pid = re.search(r"^\s*pid: (\d+)", message, re.MULTILINE)
    if pid is None:
        return message.splitlines()[0] if message else "no reason given"
    last = _last_words(logs, pid.group(1))
    if last:
        return f"process {pid.group(1)} ended with: {last}"
    return (
        f"process {pid.group(1)} ended without a word, as it does when it exits by itself, or the "
        "system kills it (SIGKILL), say because memory runs out"
    )


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
