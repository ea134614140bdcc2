"""Runs that are interrupted, killed, or run twice."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from evomerge.api.running import run
from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from tests.e2e.command import ENDLESS, EVOMERGE, evomerge
from tests.e2e.stopped import require_stopped_in_order, wait_for_trials


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
    """In this process and in another one, whose hashes of texts are others."""
    few = ("budget.trials=7", "finalists=0", "execution.executor=inline")
    overrides = [word for one in few for word in ("--set", one)]
    evomerge("run", experiment, "--dir", tmp_path / "there", *overrides)
    run(str(experiment), tmp_path / "here", set=few)
    there, here = (read_study(StudyFolder(tmp_path / name)) for name in ("there", "here"))
    assert [(t.params, t.values) for t in there.trials] == [
        (t.params, t.values) for t in here.trials
    ]
    assert any(t.params for t in here.trials if t.origin == "search")
