"""Runs that are interrupted, killed, or run twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from tests.e2e.command import EVOMERGE, evomerge


def wait_for_trials(folder: Path, n: int, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver ended before it was killed"
        items = folder / "items"
        if items.is_dir() and len(list(items.glob("*.parquet"))) >= n:
            return
        time.sleep(0.05)
    raise AssertionError("no trial finished in time")


def test_an_interrupted_driver_says_how_to_go_on(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    driver = subprocess.Popen(
        [
            *(*EVOMERGE, "run", str(experiment), "--dir", str(folder), "--executor", "inline"),
            *("--set", "budget.trials=10000"),  # it must not end by itself before the signal
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_trials(folder, 2, driver)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert f"evomerge resume {folder}" in err
    assert "Traceback" not in err


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
