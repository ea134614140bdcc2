"""The report of a run that goes on: written again and again, until the run is finished."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evomerge.cli import reading
from evomerge.cli.main import app
from evomerge.runs.reading import is_finished
from evomerge.study.folder import StudyFolder

STORED = Path(__file__).parents[1] / "studies" / "schema_1"
RELOADS = '<body data-reload="10">'


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A stored study, six of seven trials done."""
    shutil.copytree(STORED, tmp_path / "run")
    study = StudyFolder(tmp_path / "run" / "study")
    text = study.experiment.read_text()
    study.experiment.write_text(text.replace("budget: {trials: 6}", "budget: {trials: 7}"))
    return study


def test_it_is_written_until_the_run_is_finished(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def wait(seconds: float) -> None:
        """The run meets its budget while nobody looks."""
        seen.append(RELOADS in folder.report.read_text())
        text = folder.experiment.read_text()
        folder.experiment.write_text(text.replace("trials: 7", "trials: 6"))

    monkeypatch.setattr(reading.time, "sleep", wait)
    assert not is_finished(folder)
    done = CliRunner().invoke(app, ["report", str(folder.root), "--live"])
    assert done.exit_code == 0
    assert is_finished(folder)
    assert seen == [True]
    page = folder.report.read_text()
    assert "data-reload=" not in page
    assert f"evomerge export {folder.root} --pick trial:" in page
    assert [f.name for f in folder.root.iterdir() if "report" in f.name] == ["report.html"]


def test_stopping_it_leaves_a_page_that_stays(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reading.time, "sleep", stop)
    assert CliRunner().invoke(app, ["report", str(folder.root), "--live"]).exit_code == 0
    assert RELOADS not in folder.report.read_text()
