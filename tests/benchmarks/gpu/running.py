"""Starts phases one after another, stops those that take too long, and keeps what they found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.findings import Finding, read_findings
from tests.benchmarks.gpu.phases import Phase

__all__ = ["PhaseResult", "load", "run_phases", "store"]

Command = Callable[[str, Path, float], Sequence[str]]

_SHORTEST_S = 10.0  # no phase is begun with less
_GRACE_S = 5.0  # for a killed process to go; one that hangs in the driver may stay


@dataclass(frozen=True)
class PhaseResult:
    """What became of one phase.

    Attributes:
        name: Of the phase.
        state: ``done``, or why not: ``missing …``, ``stopped …``, ``died …``, ``not begun …``.
        seconds: It took.
        findings: What it had found by then.
    """

    name: str
    state: str
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def was_begun(self) -> bool:
        """Whether its process was started."""
        return not self.state.startswith(("missing", "not begun"))

    @property
    def has_failed(self) -> bool:
        """Whether it was begun and did not end well, or found something wrong."""
        ended = self.state == "done"
        return self.was_begun and not (
            ended and all(f.is_right is not False for f in self.findings)
        )


def run_phases(
    phases: Sequence[Phase], command: Command, *, total_s: float, log: Path
) -> Iterator[PhaseResult]:
    """Run phases, each in a process group of its own.

    Args:
        phases: In this order.
        command: Makes the command line of a phase from its name, the file of its findings and its
            limit in seconds.
        total_s: After so many seconds none is begun or goes on.
        log: File that what they print is added to.

    Yields:
        What became of each, when it has ended.
    """
    ends = time.monotonic() + total_s
    for phase in phases:
        left_s = ends - time.monotonic()
        if missing := phase.missing():
            yield PhaseResult(phase.name, f"missing {', '.join(missing)}", 0.0, ())
        elif left_s < _SHORTEST_S:
            yield PhaseResult(phase.name, "not begun: no time left", 0.0, ())
        else:
            yield _run(phase.name, min(phase.limit_s, left_s), command, log)


def store(results: Sequence[PhaseResult], about: dict[str, Any], file: Path) -> None:
    """Write all results so far; a reader never sees half a file."""
    content = {**about, "phases": [asdict(result) for result in results]}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(file)


def load(file: Path) -> tuple[dict[str, Any], list[PhaseResult]]:
    """Read what ``store`` wrote: what is known about the run, and its results."""
    about = json.loads(file.read_text(encoding="utf-8"))
    results = [
        PhaseResult(**{**one, "findings": tuple(Finding(**f) for f in one["findings"])})
        for one in about.pop("phases")
    ]
    return about, results


def _run(name: str, limit_s: float, command: Command, log: Path) -> PhaseResult:
    found = log.with_name(f"{log.stem}-{name}.partial")
    found.unlink(missing_ok=True)
    start = time.monotonic()
    with log.open("a", encoding="utf-8") as out:
        process = subprocess.Popen(
            command(name, found, limit_s),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        state = _state_at_end(process, limit_s)
    result = PhaseResult(name, state, time.monotonic() - start, tuple(read_findings(found)))
    found.unlink(missing_ok=True)
    return result


def _state_at_end(process: subprocess.Popen[bytes], limit_s: float) -> str:
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit_s:.0f} s"
    finally:
        _kill_group(process)
    return "done" if code == 0 else f"died with exit status {code}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started and that stayed in its group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_GRACE_S)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        return
