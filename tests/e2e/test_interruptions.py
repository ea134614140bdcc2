"""Runs that are interrupted, killed, or run twice."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from tests.e2e.command import EVOMERGE, evomerge


def wait_for_trials(folder: Path, n: int, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver ended before it was killed"
        items = folder / "items"
        if items.is_dir() and len(list(items.glob("*.parquet"))) >= n:
            return
        time.sleep(0.05)
    raise AssertionError("no trial finished in time")


ENDLESS = ["--set", "budget.trials=10000"]  # it must not end by itself before the signal


def require_stopped_in_order(folder: Path, driver: subprocess.Popen[str], said: str) -> None:
    """What ran is finished, and that is said once; nothing is drawn after the last words."""
    assert driver.returncode == 130
    assert said.count("stopping: trials that run are finished") == 1
    words = f"stopped; nothing is lost: 'evomerge resume {folder}' continues"
    before, found, after = said.rpartition(words)
    assert found
    assert not after.strip()
    assert "Traceback" not in before
    assert {t.state for t in read_study(StudyFolder(folder)).trials} == {"complete"}
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "stopped"
    assert {"loaded", "asked", "started", "scored", "told"} <= {one["event"] for one in events}
    status = json.loads(evomerge("status", folder, "--json").stdout)
    assert 0 < status["utilisation"] <= 1


def test_a_terminated_driver_finishes_its_trial_and_says_how_to_go_on(
    experiment: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    driver = subprocess.Popen(
        [
            *(*EVOMERGE, "run", str(experiment), "--dir", str(folder), "--executor", "inline"),
            *ENDLESS,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_trials(folder, 2, driver)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=200)
    require_stopped_in_order(folder, driver, said)


def test_ctrl_c_in_a_terminal_stops_workers_in_order_and_nothing_is_drawn_after(
    experiment: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c", ON_A_TERMINAL, "run", str(experiment), "--dir", str(folder)),
            *("--workers", "2", *ENDLESS),
        ],
        stdin=inside,
        stdout=subprocess.DEVNULL,
        stderr=inside,
        start_new_session=True,
        text=True,
    )
    os.close(inside)
    drawn: list[bytes] = []
    reader = threading.Thread(target=lambda: drawn.extend(iter(lambda: read(terminal), b"")))
    reader.start()
    wait_for_trials(folder, 4, driver)
    os.write(terminal, b"\x03")
    driver.wait(timeout=200)
    reader.join()
    os.close(terminal)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(drawn).decode())
    require_stopped_in_order(folder, driver, plain)
    assert "busy" in plain


ON_A_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from evomerge.cli.main import main
main()
"""


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # closed by the last that had it open
        return b""


@pytest.mark.survival
def test_a_killed_driver_loses_and_repeats_nothing(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    driver = subprocess.Popen(
        [*EVOMERGE, "run", str(experiment), "--dir", str(folder), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    wait_for_trials(folder, 3, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = {t.number: t for t in read_study(StudyFolder(folder)).trials if t.state == "complete"}
    assert 2 <= len(before) < 12
    evomerge("resume", folder)
    after = read_study(StudyFolder(folder)).trials
    assert [t.state for t in after] == ["complete"] * 12
    assert [t.number for t in after] == list(range(12))
    for number, trial in before.items():
        assert after[number] == trial  # not run again: its times are still the first run's
    assert "holds a study already" in evomerge("run", experiment, "--dir", folder, ok=False).stderr


def test_inline_runs_are_the_same_for_a_seed(experiment: Path, tmp_path: Path) -> None:
    outcomes = []
    for name in ("a", "b"):
        quick = ["--executor", "inline", "--set", "budget.trials=7", "--set", "finalists=0"]
        evomerge("run", experiment, "--dir", tmp_path / name, *quick)
        study = read_study(StudyFolder(tmp_path / name))
        outcomes.append([(t.params, t.values) for t in study.trials])
    assert outcomes[0] == outcomes[1]
