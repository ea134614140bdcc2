"""The export of a trial, held against what transformers and lm-eval say of it alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from evomerge.export.model import export_model
from evomerge.runs.loaded import Loaded
from evomerge.runs.reading import latest_results
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord
from tests.benchmarks.real.plain import key
from tests.benchmarks.results import layout

__all__ = ["export_and_check"]


def export_and_check(folder: StudyFolder, loaded: Loaded, trial: TrialRecord, out: Path) -> str:
    """Export a trial, and score its search items without evomerge.

    Args:
        folder: A finished study.
        loaded: Its experiment.
        trial: One of its trials.
        out: The model folder to write.

    Returns:
        Scores of the trial and of the folder, as Markdown.
    """
    found = latest_results(folder)
    if not out.is_dir():
        export_model(found.study, trial, out, loaded.suites, items=found.items)
    (suite,) = loaded.suites
    assert suite.include_path is not None
    prepared = [one for prompted in loaded.tasks.prompted("search") for one in prompted.tasks]
    rows = {one.name: [item.row for item in one.items] for one in prepared}
    command = [sys.executable, "-m", "tests.benchmarks.real.plain", out, suite.include_path]
    done = subprocess.run(
        [*map(str, command), "search", json.dumps(rows)],
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(done.stdout.splitlines()[-1])
    cells = [
        [
            f"`{o.task}`",
            str(len(rows[o.task])),
            f"{value:.4f}",
            f"{results[o.task][key(o.metric)]:.4f}",
        ]
        for o, value in zip(loaded.objectives, trial.values, strict=True)
    ]
    return layout(["task", "items", "trial", "its export, by lm-eval"], cells)
