"""What one command costs in a process of its own: seconds, memory, reads of the journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COMMANDS", "Cost", "cost_of"]

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
        [sys.executable, "-m", __name__, command, str(study)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    said = child.stdout.read().splitlines()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    assert child.returncode == 0, said[-3:]
    cpu = used.ru_utime + used.ru_stime
    return Cost(seconds, cpu, used.ru_maxrss / 1024, json.loads(said[-1])["reads"])


def _main(command: str, study: str) -> None:
    reads = _counted()
    if command == "resume":
        _resume(study)
    else:
        from evomerge.cli.main import app

        app([command, study], standalone_mode=False)
    print(json.dumps({"reads": len(reads)}))


def _counted() -> list[int]:
    from optuna.storages import JournalStorage

    made: list[int] = []
    init = JournalStorage.__init__

    def counted(self, backend) -> None:
        made.append(1)
        init(self, backend)

    JournalStorage.__init__ = counted
    return made


class _Asked(Exception):
    pass


def _resume(study: str) -> None:
    from evomerge.execution.inline import InlineExecutor
    from evomerge.runs.events import Events
    from evomerge.runs.run import continue_study
    from evomerge.study.folder import StudyFolder

    def submit(self, job) -> None:
        raise _Asked

    InlineExecutor.submit = submit
    InlineExecutor.load = lambda self, worker: None
    try:
        continue_study(StudyFolder(Path(study)), Events())
    except _Asked:
        return
    raise AssertionError("no trial was asked")


if __name__ == "__main__":
    _main(*sys.argv[1:])
