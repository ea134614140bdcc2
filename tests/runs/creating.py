"""Runs that are made and not continued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from evomerge.config.presets import Presets
from evomerge.runs import stages
from evomerge.runs.events import Events
from evomerge.study.folder import StudyFolder


def create_run(path: Path, presets: Presets, overrides: Sequence[str], folder: StudyFolder) -> None:
    """Make the folder of a run, as ``start_run`` does, and leave it to whoever continues it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "continue_run", lambda *_, **__: None)
        stages.start_run(path, presets, overrides, folder, Events())
