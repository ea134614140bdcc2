"""The study folder: where its files are, and the lock that keeps two drivers apart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import StudyError

__all__ = ["StudyFolder", "write_atomically"]


_STAGES = "stages"


class StudyFolder:
    """Paths inside one study folder.

    Args:
        root: The folder; need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.experiment = root / "experiment.yaml"
        self.journal = root / "study.journal"
        self.items = root / "items"
        self.driver = root / "driver.json"  # only of a study in a database
        self.finals = root / "finals.json"
        self.timing = root / "timing.json"
        self.log = root / "log.jsonl"
        self.comparison = root / "comparison.json"
        self.report = root / "report.html"
        self.models = root / "models"  # of a stage: what it hands on
        self.winners = root / "winners.json"
        self._is_held = False

    @property
    def name(self) -> str:
        """What people call the study."""
        if self.root.parent.name == _STAGES:
            return f"{self.root.parents[1].name}, stage {self.root.name}"
        return self.root.name

    def stage(self, number: int) -> StudyFolder:
        """Return the folder of one stage, from 1, of an experiment that chains spaces."""
        return StudyFolder(self.root / _STAGES / str(number))

    def require_free(self) -> StudyFolder:
        """Return self if no study is here yet.

        Raises:
            StudyError: One is.
        """
        if self.experiment.is_file():
            raise StudyError(
                f"{self.root} holds a study already; 'evomerge resume {self.root}' continues it, "
                "with --set KEY=VALUE under another budget; or choose another folder with --dir"
            )
        return self

    def require(self) -> StudyFolder:
        """Return self if a study is here.

        Raises:
            StudyError: No study here.
        """
        if not self.experiment.is_file():
            raise StudyError(
                f"expected a study folder (with experiment.yaml) at {self.root}, found none; "
                "'evomerge run EXPERIMENT' makes one"
            )
        return self

    def make(self) -> None:
        """Make the folder if it is not there.

        Raises:
            StudyError: A file is in its place.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StudyError(f"expected a folder for a study at {self.root}, got a file") from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for one driver; released by the system when the process ends.

        What holds it already may hold it again, through the same object.

        Raises:
            StudyError: Another driver holds it.
        """
        if self._is_held:
            yield
            return
        self.make()
        with (self.root / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StudyError(
                    f"another evomerge process is running the study in {self.root}; wait for it, "
                    "or stop it first"
                ) from None
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a killed process leaves the old content or the new, never a part."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
