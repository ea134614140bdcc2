"""Search on machines that are lost, joined, cut off and restarted: ``make clusters``.

Writes a table to ``runs/benchmarks/clusters.md``. Machines are network namespaces of this one
(``machines``), so root and Linux are needed; the server of PostgreSQL is one of its own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.benchmarks.clusters.machines import OWN, PORT, Lan, Machine, kill

N_TRIALS = 30
_PATIENCE_S = 600.0
_DRIVER = "tests.benchmarks.clusters.driver"


@dataclass(frozen=True)
class Row:
    """What was done to a search, and what came of it."""

    event: str
    happened: str
    seconds: str
    told: str

    def __str__(self) -> str:
        return f"| {self.event} | {self.happened} | {self.seconds} | {self.told} |"


class Life:
    """A driver's output, read while it is written."""

    def __init__(self, log: Path, n_trials: int = N_TRIALS) -> None:
        self._log, self._n_trials = log, n_trials

    def times(self, pattern: str) -> list[tuple[float, str]]:
        """When something was said, and what."""
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        lines = [line.split(" ", 1) for line in text.splitlines() if re.match(r"\d+\.\d+ ", line)]
        return [(float(at), said) for at, said in lines if re.search(pattern, said)]

    def until(self, pattern: str, n: int = 1) -> float:
        """Wait until something was said so often; tells when."""
        end = time.time() + _PATIENCE_S
        while len(found := self.times(pattern)) < n:
            if time.time() > end:
                raise TimeoutError(f"{pattern!r} was not said {n} times; see {self._log}")
            if self._log.is_file() and "\nTraceback" in self._log.read_text(errors="replace"):
                raise RuntimeError(f"the driver failed before {pattern!r}; see {self._log}")
            time.sleep(0.05)
        return found[n - 1][0]

    def told(self) -> list[int]:
        return [int(said.split()[1]) for _, said in self.times("^told ")]

    def counted(self) -> str:
        """Check that each trial of the budget was told once."""
        told = self.told()
        lost, twice = set(range(self._n_trials)) - set(told), len(told) - len(set(told))
        return f"{len(set(told))} of {self._n_trials}, {len(lost)} lost, {twice} doubled"

    def pause_after(self, event: float) -> float:
        """The longest time without a trial told, from shortly before an event."""
        told = [at for at, _ in self.times("^told ")]
        before = max((at for at in told if at <= event), default=event)
        marks = [before, *(at for at in told if at > event)]
        return max((b - a for a, b in pairwise(marks)), default=0.0)


def fresh(logs: Path) -> None:
    """Make a folder, without what an earlier measurement left there."""
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)


def started(log: Path) -> None:
    """Wait until Ray says that it runs on a machine."""
    end = time.time() + _PATIENCE_S
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if time.time() > end:
            raise TimeoutError(f"Ray did not start; see {log}")
        time.sleep(0.1)


@contextmanager
def cluster(n_machines: int, logs: Path) -> Iterator[tuple[Lan, Machine, list[Machine]]]:
    """A head without workers, where the driver runs, and machines of one worker each."""
    fresh(logs)
    with Lan() as lan:
        head = lan.machine()
        head.head(logs / "head.log")
        started(logs / "head.log")
        others = [lan.machine() for _ in range(n_machines)]
        for machine in others:
            machine.join(head, 1, logs / f"{machine.host}.log")
        for machine in others:
            started(logs / f"{machine.host}.log")
        yield lan, head, others


def drive(head: Machine, logs: Path, n_trials: int = N_TRIALS) -> tuple[Life, Callable[[], None]]:
    """Start a driver on the head, or start it again; returns its output and what kills it."""
    log, study = logs / "driver.log", logs / "study"
    words = (str(study), f"{head.address}:{PORT}", str(n_trials))
    child = head.start(sys.executable, "-m", _DRIVER, *words, log=log)
    return Life(log, n_trials), lambda: kill(child)


def undisturbed(logs: Path) -> Row:
    with cluster(3, logs) as (_, head, _others):
        life, _ = drive(head, logs)
        start, end = life.until("phase searching"), life.until("^done")
        return Row("nothing", "3 workers, to the end", f"{end - start:.1f} in all", life.counted())


def machine_lost(logs: Path) -> Row:
    with cluster(3, logs) as (_, head, others):
        life, _ = drive(head, logs)
        life.until("^told", 10)
        event = time.time()
        others[1].lose()
        noticed = life.until("log the worker of trial") - event
        life.until("^done")
        return _lost_one("a machine is turned off", f"noticed after {noticed:.1f} s", life, event)


def machine_cut_off(logs: Path) -> Row:
    with cluster(3, logs) as (_, head, others):
        life, _ = drive(head, logs)
        life.until("^told", 10)
        event = time.time()
        others[1].unplug()
        life.until("^done")
        said = life.times("log the worker of trial")
        noticed = f"noticed after {said[0][0] - event:.1f} s" if said else "not noticed"
        return _lost_one("a machine's network is cut", noticed, life, event)


def _lost_one(name: str, noticed: str, life: Life, event: float) -> Row:
    pause = f"{life.pause_after(event):.1f} without a trial told"
    return Row(name, f"{noticed}; its trial ran again on another", pause, life.counted())


def machine_joined(logs: Path) -> Row:
    with cluster(1, logs) as (lan, head, _others):
        life, _ = drive(head, logs, 4 * N_TRIALS)  # time to join
        life.until("^told", 5)
        event = time.time()
        lan.machine().join(head, 1, logs / "late.log")
        used = life.until("log 2 workers are at work") - event
        life.until("^done")
        happened = f"its worker was at work {used:.1f} s after ray start"
        return Row("a machine joins", happened, "0", life.counted())


def driver_lost(logs: Path) -> Row:
    with cluster(3, logs) as (_, head, _others):
        life, lose = drive(head, logs)
        life.until("^told", 10)
        lose()
        event, n = time.time(), len(life.told())
        drive(head, logs)
        again = life.until("^told", n + 1) - event
        life.until("^done")
        return Row(
            "the driver is killed",
            "started again at once, it went on",
            f"{again:.1f} to the next trial told",
            life.counted(),
        )


def server_away(logs: Path, seconds: float, event_name: str) -> Row:
    """Two drivers on two machines, folders of one path, and a server of PostgreSQL that goes."""
    from tests.study.test_postgres import Server

    fresh(logs)
    with tempfile.TemporaryDirectory(prefix="pg", dir="/var/tmp") as folder, Lan() as lan:
        server = Server(Path(folder))
        server.control("start")
        lives = []
        try:
            storage = "storage=" + server.new_database("shared")
            for machine in (lan.machine(), lan.machine()):
                log = logs / f"{machine.host}.log"
                words = (str(OWN / "shared"), "inline", str(N_TRIALS), storage)
                machine.start(sys.executable, "-m", _DRIVER, *words, log=log)
                lives.append(Life(log))
            for life in lives:
                life.until("^told", 6)
            event = time.time()
            server.control("stop", "-m", "immediate")
            time.sleep(seconds)
            server.control("start")
            back = time.time()
            for life in lives:
                life.until("^done")
        finally:
            server.control("stop", "-m", "immediate")
    told = [number for life in lives for number in life.told()]
    next_told = min(at for life in lives for at, _ in life.times("^told") if at > back)
    lost, twice = set(range(N_TRIALS)) - set(told), len(told) - len(set(told))
    counts = f"{len(set(told))} of {N_TRIALS}, {len(lost)} lost, {twice} doubled"
    shares = " and ".join(str(len(life.told())) for life in lives)
    happened = f"both drivers waited and went on; they told {shares} trials"
    return Row(
        event_name, happened, f"{back - event:.1f} away, {next_told - back:.1f} more", counts
    )


SCENES: dict[str, Callable[[Path], Row]] = {
    "undisturbed": undisturbed,
    "lost": machine_lost,
    "cut": machine_cut_off,
    "joined": machine_joined,
    "driver": driver_lost,
    "restart": lambda logs: server_away(logs, 0.0, "the database server restarts"),
    "away": lambda logs: server_away(logs, 60.0, "the database server is gone for a minute"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", default=list(SCENES), metavar="SCENE")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/clusters"))
    chosen = parser.parse_args()
    rows = []
    for name in chosen.scenes:
        try:
            rows.append(SCENES[name](chosen.out.resolve() / name))
        except (RuntimeError, TimeoutError) as err:
            rows.append(Row(name, f"not measured: {err}", "", ""))
        print(rows[-1], flush=True)
    table = "| what happened | what came of it | seconds | trials told |\n|---|---|---|---|\n"
    (chosen.out / "table.md").write_text(table + "\n".join(map(str, rows)) + "\n")


if __name__ == "__main__":
    main()
