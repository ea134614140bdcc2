"""When to interrupt a run, and what it must have said and left behind."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from tests.e2e.command import evomerge


def wait_for_trials(folder: Path, n: int, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver ended before it was interrupted"
        items = folder / "items"
        if items.is_dir() and len(list(items.glob("*.parquet"))) >= n:
            return
        time.sleep(0.05)
    raise AssertionError("no trial finished in time")


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
