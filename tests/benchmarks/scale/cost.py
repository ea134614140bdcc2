"""What one command costs in a process of its own: seconds, memory, reads of the journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evomerge.execution.protocol import Job
    from evomerge.study.journal import Journal

__all__ = ["COMMANDS", "Cost", "cost_of", "counted", "run_counted"]

COMMANDS = ("status", "front", "resume", "report")


@dataclass(frozen=True)
class Cost:
    """Of one command.

    Attributes:
        seconds: Wall clock, from the start of its process to its end.
        cpu_seconds: Of all its threads.
        megabytes: The most memory it held.
        reads: How many times it read the journal from its start.
    """

    seconds: float
    cpu_seconds: float
    megabytes: float
    reads: int


def cost_of(command: str, study: Path) -> Cost:
    """Run a command on a study; ``resume`` until its next trial is asked."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.scale.cost", command, str(study)],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    said = child.stdout.read().splitlines()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    assert child.returncode == 0, said[-3:]
    cpu = used.ru_utime + used.ru_stime
    return Cost(seconds, cpu, used.ru_maxrss / 1024, json.loads(said[-1])["reads"])


def run_counted(command: str, study: Path) -> int:
    """Run a command in this process; ``resume`` until its next trial is asked.

    Returns:
        How many times it read the journal from its start.
    """
    with counted() as reads:
        if command == "resume":
            _resume(study)
        else:
            from evomerge.cli.main import app

            app([command, str(study)], standalone_mode=False)
    return len(reads)


@contextmanager
def counted() -> Iterator[list[str]]:
    """List the reads of journals from their start that happen inside the block."""
    from evomerge.study.trial_journal import TrialJournal

    reads: list[str] = []
    init = TrialJournal.__init__

    def counted(self: TrialJournal, journal: Journal) -> None:
        reads.append("from its start")
        init(self, journal)

    TrialJournal.__init__ = counted  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        TrialJournal.__init__ = init  # type: ignore[method-assign]


class _AskedError(Exception):
    """The next trial was asked, and given to the worker."""


class _Idle:
    """A worker that takes no job."""

    n_workers = 1

    def load(self, worker: object) -> None:
        pass

    def submit(self, job: Job) -> None:
        raise _AskedError

    def close(self) -> None:
        pass


def _resume(study: Path) -> None:
    from evomerge.runs import run
    from evomerge.runs.events import Events
    from evomerge.study.folder import StudyFolder

    start = run.start_executor
    run.start_executor = lambda *config: _Idle()  # type: ignore[assignment, return-value]
    try:
        run.continue_study(StudyFolder(study), Events())
    except _AskedError:
        return
    finally:
        run.start_executor = start
    raise AssertionError("no trial was asked")


if __name__ == "__main__":
    print(json.dumps({"reads": run_counted(sys.argv[1], Path(sys.argv[2]))}))
