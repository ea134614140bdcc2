"""Drivers that share a PostgreSQL database, on a server of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from evomerge.errors import StudyError
from evomerge.execution.protocol import Outcome
from evomerge.study.database import open_database
from evomerge.study.ledger import DRIVER
from evomerge.study.storage import open_storage
from tests.study.fakes import FormulaExecutor
from tests.study.test_search import drive, outcome

pytest.importorskip("psycopg", reason="psycopg is not installed")
BINARIES = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
BIN = next((b for b in BINARIES if (b / "initdb").exists() and (b / "pg_ctl").exists()), None)
pytestmark = pytest.mark.skipif(BIN is None, reason="no PostgreSQL server is installed")
N_TRIALS = 12


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


def side_by_side(*lives: Callable[[], object]) -> list[int]:
    """Run each in a process of its own, all at once; returns exit codes."""
    children = []
    for life in lives:
        if (child := os.fork()) == 0:
            try:
                life()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_drivers_that_start_on_an_empty_database_together_share_the_budget(
    server: Server, tmp_path: Path
) -> None:
    url = server.new_database("shared")

    def life(name: str) -> Callable[[], object]:
        executor = FormulaExecutor(2)
        shared = {"trials": N_TRIALS, "driver": name, "url": url, "patience_s": 30.0}
        return lambda: drive(tmp_path / name, executor, **shared)

    assert side_by_side(life("a"), life("b")) == [0, 0]
    study = optuna.load_study(study_name="s", storage=open_storage(Path(), url))
    asked = [t for t in study.trials if t.state != optuna.trial.TrialState.WAITING]
    assert [t.number for t in asked] == list(range(N_TRIALS))
    assert {t.state for t in asked} == {optuna.trial.TrialState.COMPLETE}
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


def test_a_server_that_stays_away_ends_the_driver_with_what_to_do(server: Server) -> None:
    storage = open_database(server.new_database("away"), patience_s=0.3)
    server.control("stop", "-m", "immediate")
    try:
        with pytest.raises(StudyError, match=r"has not answered for .*'evomerge resume DIR'"):
            storage.get_all_studies()
    finally:
        server.control("start")
    assert storage.get_all_studies() == []
