from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.errors import StudyError
from evomerge.study.folder import StudyFolder, write_atomically


def test_two_drivers_cannot_hold_one_study(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evomerge.study.folder import StudyFolder\n"
        f"with StudyFolder(Path({str(tmp_path)!r})).lock():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StudyError, match="another evomerge process"),
            StudyFolder(tmp_path).lock(),
        ):
            pass
        holder.kill()
    with StudyFolder(tmp_path).lock():  # the system released it with the process
        pass


def test_a_missing_study_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="expected a study folder"):
        StudyFolder(tmp_path).require()


def test_atomic_writes_replace_and_leave_nothing_behind(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f.json", "1")
    write_atomically(tmp_path / "f.json", "2")
    assert (tmp_path / "f.json").read_text() == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_a_folder_with_other_files_is_no_place_for_a_study(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    (tmp_path / ".lock").touch()
    (tmp_path / "report.html").write_text("of a study before")
    (tmp_path / "tensorboard").mkdir()
    assert folder.require_free() is folder
    (tmp_path / "sums.yaml").write_text("mine")
    with pytest.raises(StudyError, match=r"expected a new or empty .* with sums\.yaml; choose"):
        folder.require_free()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_place_for_a_study(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StudyError, match="expected a folder for a study"):
        StudyFolder(tmp_path / name).make()
    assert (tmp_path / "file").read_text() == "mine"
