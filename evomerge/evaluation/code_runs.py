"""Code that models write, run with its tests in a process of its own, as ``confined`` keeps it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation import confined
from evomerge.evaluation.scored_items import AnsweredItem, OwnScore

__all__ = ["Confine", "Runs"]

Confine = Literal["full", "limits"]

_PROGRAM = Path(confined.__file__)
_PATIENCE = 10  # wall clock over CPU seconds: ends what sleeps, whatever else the machine does
_LEAST_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Runs:
    """What is run of an answer. It counts as 1 if it comes to its end, else as 0.

    Attributes:
        code: Template over ``prompt``, ``answer``, ``target`` and ``doc`` (the dataset row).
        seconds: Of CPU; rounded up.
        memory_mb: Address space, Python and its libraries included.
        parallel: Processes that a worker runs at once.
        confine: ``full``: without network, other processes and writing elsewhere; refused where the
            system cannot. ``limits``: seconds and memory alone.
    """

    code: str
    seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    memory_mb: Annotated[int, Field(ge=64, le=1 << 20)] = 1024
    parallel: Annotated[int, Field(gt=0, le=1000)] = 1
    confine: Confine = "full"

    __pydantic_config__ = ConfigDict(extra="forbid")

    def faults(self) -> Iterator[Fault]:
        """Tell whether this machine can keep code as far as it is wanted."""
        if self.confine == "full" and (why := _not_confined()):
            text = f"cannot keep code from writing elsewhere and from the network here: {why}"
            yield Fault(("confine",), text, "run in a container, and set confine: limits")

    @property
    def content(self) -> list[object]:
        """What results depend on, as plain data."""
        return [self.code, self.seconds, self.memory_mb, self.confine]

    def scores(self, metric: str, items: Sequence[AnsweredItem]) -> list[OwnScore]:
        """Run the answers of items: the share that passes, of each.

        Raises:
            EvaluationError: The template fails, or no process can be started.
        """
        what = "the template of code"
        codes = [
            [item.rendered(metric, what, self.code, text) for text in item.texts] for item in items
        ]
        with ThreadPoolExecutor(self.parallel) as pool:
            passed = pool.map(self._passes, [code for of_item in codes for code in of_item])
            return [OwnScore(fmean(float(next(passed)) for _ in of_item)) for of_item in codes]

    def _passes(self, code: str) -> bool:
        token = secrets.token_hex(16)
        said = _run(code, self, token)
        if said.startswith(confined.NOT_CONFINED):
            raise EvaluationError(f"the code of answers is {said}")
        return said == token


def _run(code: str, runs: Runs, token: str) -> str:
    """Run code in a folder that is gone afterwards; returns what the program says of it."""
    with _folder() as folder, tempfile.TemporaryFile() as said:
        file = Path(folder).resolve() / "answer.py"
        file.write_text(code, encoding="utf-8", errors="surrogatepass")
        wanted = {
            "file": str(file),
            "seconds": runs.seconds,
            "bytes": runs.memory_mb << 20,
            "confine": runs.confine,
            "token": token,
        }
        program = subprocess.Popen(
            [sys.executable, "-s", "-c", _PROGRAM.read_text(encoding="utf-8")],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        _finish(program, json.dumps(wanted), max(_LEAST_PATIENCE_S, _PATIENCE * runs.seconds))
        said.seek(0)
        return said.read(1000).decode(errors="replace")


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """Make a folder that is gone afterwards, whatever code has put there."""
    folder = tempfile.mkdtemp()
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder)
        except (OSError, RecursionError):  # gone already, or deeper than Python can go
            subprocess.run(["rm", "-rf", folder], stderr=subprocess.DEVNULL, check=False)


def _finish(program: subprocess.Popen[bytes], wanted: str, patience_s: float) -> None:
    """Wait for a program, and end it with what it has started, however it ends."""
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.communicate(wanted.encode(), timeout=patience_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours, keys above all; sums and the order of sets are the same every time."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"HOME": folder, "TMPDIR": folder, "PYTHONHASHSEED": "0", "LANG": "C.UTF-8", **threads}


@functools.cache
def _not_confined() -> str | None:
    """Say what this machine lacks; ``None`` if code can be confined in full."""
    try:
        said = _run("", Runs(""), "done")
    except OSError as err:
        return str(err)
    if said == "done":
        return None
    return said.removeprefix(confined.NOT_CONFINED) or "the program did not start"
