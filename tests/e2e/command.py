"""The command line in a process of its own."""

from __future__ import annotations

import subprocess
import sys

EVOMERGE = [sys.executable, "-m", "evomerge.cli.main"]
ENDLESS = ["--set", "budget.trials=10000"]  # it must not end by itself before a signal


def evomerge(*arguments: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*EVOMERGE, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done
