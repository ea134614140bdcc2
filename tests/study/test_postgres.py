"""Drivers that share a PostgreSQL database, on a server of the test's own."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from evomerge.errors import StudyError
from evomerge.execution.protocol import Outcome
from evomerge.study.database import open_database
from evomerge.study.folder import StudyFolder
from evomerge.study.identity import identify
from evomerge.study.ledger import DRIVER
from evomerge.study.storage import open_storage
from tests.study.fakes import FormulaExecutor
from tests.study.test_search import drive, outcome

pytest.importorskip("psycopg", reason="psycopg is not installed")
BINARIES = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
BIN = next((b for b in BINARIES if (b / "initdb").exists() and (b / "pg_ctl").exists()), None)
pytestmark = pytest.mark.skipif(BIN is None, reason="no PostgreSQL server is installed")
N_TRIALS = 12
NEW_MACHINE = 0x00020000 | 0x04000000  # of mounts and of the host name, in Linux' words


def as_machine(host: str, disk: Path, place: Path) -> None:
    """Make this process one of a machine of its own, with a disk of its own at some place."""
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MACHINE) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", str(disk), str(place)], check=True)
    socket.sethostname(host)


MAY_UNSHARE = (
    shutil.which("unshare") is not None
    and subprocess.call(["unshare", "--mount", "--uts", "true"], stderr=subprocess.DEVNULL) == 0
)


class Server:
    """A server that listens in its folder alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync")

    def _run(self, command: str, *arguments: str) -> None:
        assert BIN is not None
        subprocess.run(
            [str(BIN / command), *arguments],
            cwd=self.folder,
            user=self._user,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    def control(self, *action: str) -> None:
        options = f"-c listen_addresses= -c fsync=off -k {self.folder}"
        self._run("pg_ctl", *action, "-D", "data", "-w", "-l", "log", "-o", options)

    def new_database(self, name: str) -> str:
        self._run("createdb", "-h", str(self.folder), "-U", "postgres", name)
        return f"postgresql://postgres@/{name}?host={self.folder}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # sockets need a short path
        made = Server(Path(folder))
        made.control("start")
        yield made
        made.control("stop", "-m", "immediate")


def started(life: Callable[[], object]) -> int:
    """Run it in a process of its own; returns its id."""
    if (child := os.fork()) == 0:
        try:
            life()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def side_by_side(*lives: Callable[[], object]) -> list[int]:
    """Run each in a process of its own, all at once; returns exit codes."""
    return [exit_code(child) for child in list(map(started, lives))]


class Slow(FormulaExecutor):
    """Takes a while, and writes down each trial when it runs it, whatever becomes of it."""

    def __init__(self, n_workers: int, log: Path, pause_s: float = 0.05) -> None:
        super().__init__(n_workers)
        self._log, self._pause_s = log, pause_s

    def next_outcome(self) -> Outcome:
        time.sleep(self._pause_s)
        outcome = super().next_outcome()
        with self._log.open("a") as log:
            log.write(f"{outcome.job.trial}\n")
        return outcome


def ran(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.is_file() else []


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError("it never came")


def told(url: str) -> list[optuna.trial.FrozenTrial]:
    """Trials that were asked; each once, and told."""
    study = optuna.load_study(study_name="s", storage=open_storage(Path(), url))
    asked = [t for t in study.trials if t.state != optuna.trial.TrialState.WAITING]
    assert [t.number for t in asked] == list(range(N_TRIALS))
    assert {t.state for t in asked} == {optuna.trial.TrialState.COMPLETE}
    return asked


def test_drivers_that_start_on_an_empty_database_together_share_the_budget(
    server: Server, tmp_path: Path
) -> None:
    url = server.new_database("shared")

    def life(name: str) -> Callable[[], object]:
        executor = FormulaExecutor(2)
        shared = {"trials": N_TRIALS, "driver": name, "url": url, "patience_s": 30.0}
        return lambda: drive(tmp_path / name, executor, **shared)

    assert side_by_side(life("a"), life("b")) == [0, 0]
    asked = told(url)
    origins = [t.user_attrs["origin"] for t in asked]
    assert {o: origins.count(o) for o in origins if o != "search"} == dict.fromkeys(
        ["base", "expert:a", "expert:b", "uniform"], 1
    )
    kept = {name: {p.name[:6] for p in (tmp_path / name / "items").glob("*")} for name in "ab"}
    assert not kept["a"] & kept["b"]
    assert {t.user_attrs[DRIVER] for t in asked} <= {"a", "b"}


def test_a_server_that_restarts_is_waited_for(server: Server, tmp_path: Path) -> None:
    class Restarting(FormulaExecutor):
        def next_outcome(self) -> Outcome:
            if len(self.ran) in (2, 7):
                server.control("restart", "-m", "immediate")
            return super().next_outcome()

    whole = drive(tmp_path / "whole", FormulaExecutor(), trials=N_TRIALS)
    url = server.new_database("restarted")
    trials = drive(tmp_path / "a", Restarting(), trials=N_TRIALS, driver="a", url=url)
    assert outcome(trials) == outcome(whole)


def test_a_killed_driver_loses_nothing_and_the_others_go_on(server: Server, tmp_path: Path) -> None:
    url, log = server.new_database("killed"), {name: tmp_path / f"{name}.log" for name in "ab"}

    def life(name: str) -> Callable[[], object]:
        executor = Slow(2, log[name])
        shared = {"trials": N_TRIALS, "driver": name, "url": url, "patience_s": 30.0}
        return lambda: drive(tmp_path / name, executor, **shared)

    one, other = started(life("a")), started(life("b"))
    until(lambda: len(ran(log["a"])) >= 2)
    os.kill(one, signal.SIGKILL)
    assert [exit_code(one), exit_code(other)] == [-signal.SIGKILL, 0]
    assert side_by_side(life("a")) == [0]  # started again, it runs what it left
    told(url)
    assert not {*ran(log["a"])} & {*ran(log["b"])}, "no trial ran on both"


def test_a_server_that_is_gone_for_a_while_costs_no_trial(server: Server, tmp_path: Path) -> None:
    url, log = server.new_database("gone"), {name: tmp_path / f"{name}.log" for name in "ab"}

    def life(name: str) -> Callable[[], object]:
        executor = Slow(2, log[name])
        shared = {"trials": N_TRIALS, "driver": name, "url": url, "patience_s": 30.0}
        return lambda: drive(tmp_path / name, executor, **shared)

    children = [started(life("a")), started(life("b"))]
    until(lambda: len(ran(log["a"])) >= 1 and len(ran(log["b"])) >= 1)
    assert len(ran(log["a"])) + len(ran(log["b"])) < N_TRIALS, "the server stops in mid-search"
    server.control("stop", "-m", "immediate")
    time.sleep(1.0)
    server.control("start")
    assert [exit_code(child) for child in children] == [0, 0]
    told(url)
    assert sorted([*ran(log["a"]), *ran(log["b"])]) == list(range(N_TRIALS)), "each ran once"


@pytest.mark.skipif(not MAY_UNSHARE, reason="namespaces are not permitted here")
def test_drivers_on_two_machines_whose_folders_have_the_same_path(
    server: Server, tmp_path: Path
) -> None:
    url, place = server.new_database("paths"), tmp_path / "runs"
    place.mkdir()

    def life(host: str) -> Callable[[], object]:
        (disk := tmp_path / host).mkdir()

        def run() -> None:
            as_machine(host, disk, place)
            root = place / "my"
            root.mkdir()
            me = identify(StudyFolder(root))
            assert socket.gethostname() == host
            shared = {"trials": N_TRIALS, "driver": me.id, "url": url, "patience_s": 30.0}
            drive(root, Slow(2, root / "log"), **shared)

        return run

    assert side_by_side(life("one"), life("two")) == [0, 0]
    drivers = {t.user_attrs[DRIVER] for t in told(url)}
    kept = [ran(tmp_path / host / "my" / "log") for host in ("one", "two")]
    assert sorted(kept[0] + kept[1]) == list(range(N_TRIALS))
    assert len(drivers) == sum(map(bool, kept)), "each is known by a name of its own"


def test_a_server_that_stays_away_ends_the_driver_with_what_to_do(server: Server) -> None:
    storage = open_database(server.new_database("away"), patience_s=0.3)
    server.control("stop", "-m", "immediate")
    try:
        with pytest.raises(StudyError, match=r"has not answered for .*'evomerge resume DIR'"):
            storage.get_all_studies()
    finally:
        server.control("start")
    assert storage.get_all_studies() == []
