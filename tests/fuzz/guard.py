"""Reads damaged inputs in forked processes that are watched: time, memory, files, what is said.

A batch is read by one process: what a reader needs is imported before. Every input lies in a fresh
folder, ``input``, beside ``outside``, whose files nobody may open: inotify tells, which native code
does not escape.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.cli.terminal import forget_faults, notes, print_faults
from evomerge.errors import EvomergeError
from tests.fuzz.mutations import SECRETS

__all__ = ["BAD", "BATCH", "Finding", "Fuzzed", "command", "fuzz"]

BAD = ("traceback", "hang", "memory", "escape", "secret", "unclear")
_LONGEST_S = 120.0  # of CPU for one input; a sound one takes a tenth of a second
_PATIENCE_S = 900.0  # of clock, on a machine that gives a tenth of a core
_MOST_BYTES = 3 << 30  # on top of what a process has when it starts
BATCH = 50
_LONGEST_LINE = 2500
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link")
_RUNS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "socket.connect")
_IN_OPEN, _IN_CHANGE, _IN_NONBLOCK = 0x20, 0x2 | 0x4 | 0x100 | 0x200, 0x800


@dataclass(frozen=True)
class Fuzzed:
    """One kind of input.

    Attributes:
        make: Writes a sound input into a folder.
        damage: Damages what is in the folder.
        read: Reads it as the product does; raises what that raises.
    """

    make: Callable[[Path], None]
    damage: Callable[[Path, random.Random], None]
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Finding:
    """What one damaged input came to.

    Attributes:
        seed: Of its damage.
        outcome: ``accepted``, ``refused`` or one of ``BAD``.
        said: What was said, or the traceback.
        seconds: That it took.
    """

    seed: int
    outcome: str
    said: str
    seconds: float


def command(*arguments: object) -> None:
    """Run a command of the product in this process.

    Raises:
        BaseException: What it raised, where that is no mistake of a user.
    """
    from evomerge.cli import main as cli

    sys.argv = ["evomerge", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        if end.code in (0, None):
            return
        if end.code == 2:
            raise EvomergeError from None  # it has said what is wrong
        raise end.__context__ or end from None


def fuzz(kind: Fuzzed, name: str, n: int, root: Path, first: int = 0) -> Iterator[Finding]:
    """Damage a sound input ``n`` times, and read it.

    Args:
        kind: Of the input.
        name: Of the kind: inputs depend on it and on their seed only.
        n: How many.
        root: A folder to work in.
        first: Seed of the first one.

    Raises:
        AssertionError: The sound input is not accepted.
    """
    root.mkdir(parents=True, exist_ok=True)
    sound = root / "sound"
    kind.make(sound)
    _write_outside(root / "outside")
    shutil.copytree(sound, root / "input")
    with redirect_stdout(io.StringIO()):
        kind.read(root / "input")  # imports, compiles and caches what the processes share
    left = list(range(first, first + n))
    while left:
        for found in _batch(kind, name, left[:BATCH], root):
            left.remove(found.seed)
            yield found


def _write_outside(folder: Path) -> None:
    from evomerge.models.zoo import zoo_path

    shutil.copytree(zoo_path("base"), folder)


def _batch(kind: Fuzzed, name: str, seeds: list[int], root: Path) -> Iterator[Finding]:
    """Read inputs in one process, up to the first that ends it."""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        os.close(ours)
        _Child(kind, name, root, theirs).run(seeds)
    os.close(theirs)
    try:
        with os.fdopen(ours) as answers:
            for seed in seeds:
                found = _answer(answers, seed, child)
                yield found
                if found.outcome in ("hang", "memory", "traceback"):
                    return
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer(answers: io.TextIOBase, seed: int, child: int) -> Finding:
    ready, _, _ = select.select([answers], [], [], _PATIENCE_S)
    if not ready:
        return Finding(seed, "hang", "", _PATIENCE_S)
    line = answers.readline()
    if not line:
        return Finding(seed, "traceback", "its process died", 0.0)
    return Finding(**json.loads(line))


class _Child:
    """Reads damaged inputs, and tells of each in a line."""

    def __init__(self, kind: Fuzzed, name: str, root: Path, answers: int) -> None:
        self._kind, self._name, self._root = kind, name, root
        self._answers = os.fdopen(answers, "w")
        self._escapes: list[str] = []
        self._is_watched = False
        self._cache = os.environ.get("EVOMERGE_CACHE", "off")

    def run(self, seeds: list[int]) -> None:
        try:
            _limit_memory()
            sys.addaudithook(self._hear)
            for seed in seeds:
                self._answers.write(json.dumps(asdict(self._read(seed))) + "\n")
                self._answers.flush()
        except BaseException:  # a fault of the fuzzer itself
            traceback.print_exc()
        finally:
            os._exit(0)

    def _read(self, seed: int) -> Finding:
        folder = self._root / "input"
        _remove(folder)
        shutil.copytree(self._root / "sound", folder, symlinks=True)
        self._kind.damage(folder, random.Random(f"{self._name} {seed}"))
        self._escapes.clear()
        watch, said, started = _Watch(self._root / "outside"), io.StringIO(), time.process_time()
        self._is_watched = True
        with redirect_stdout(said), redirect_stderr(said):
            outcome, trace = self._outcome(folder)
        self._is_watched = False
        self._escapes += watch.heard()
        text = trace or "\n".join((*self._escapes, said.getvalue()))
        if outcome in ("accepted", "refused"):
            outcome = self._judged(outcome, said.getvalue())
        seconds = round(time.process_time() - started, 3)
        return Finding(seed, outcome if seconds < _LONGEST_S else "hang", text[-4000:], seconds)

    def _outcome(self, folder: Path) -> tuple[str, str]:
        forget_faults()
        try:
            self._kind.read(folder)
        except EvomergeError as err:
            print_faults(err.faults)
            return "refused", ""
        except OSError as err:  # a line and status 2, too
            notes.print(f"error: {err.strerror}: {err.filename}")
            return "refused", ""
        except MemoryError:
            return "memory", traceback.format_exc()
        except BaseException:
            return "traceback", traceback.format_exc()
        return "accepted", ""

    def _judged(self, outcome: str, said: str) -> str:
        lines = said.splitlines()
        if self._escapes:
            return "escape"
        if any(secret in said for secret in SECRETS):
            return "secret"
        is_clear = all(len(line) < _LONGEST_LINE for line in lines) and "Traceback" not in said
        errors = [line for line in lines if line.startswith("error: ")]
        return outcome if is_clear and bool(errors) == (outcome == "refused") else "unclear"

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_watched:
            return
        is_write = event == "open" and bool(int(arguments[2] or 0) & _WRITES)
        if (is_write or event in _CHANGES) and isinstance(arguments[0], str | bytes | Path):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            places = (str(self._root / "input"), self._cache, "/dev/null")
            if not path.startswith(places):
                self._escapes.append(f"{event} {path}")
        elif event in _RUNS:
            self._escapes.append(f"{event} {arguments[:2]!r}")


class _Watch:
    """Hears of files of a folder that are opened or changed, by any code of this process."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue = libc.inotify_init1(_IN_NONBLOCK)
        added = libc.inotify_add_watch(self._queue, os.fsencode(folder), _IN_OPEN | _IN_CHANGE)
        assert self._queue >= 0
        assert added >= 0

    def heard(self) -> list[str]:
        try:
            return [f"outside, opened or changed: {os.read(self._queue, 65536)[16:60]!r}"]
        except BlockingIOError:
            return []
        finally:
            os.close(self._queue)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
