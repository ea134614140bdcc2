"""Real studies of the embedded models, kept in folders: finished ones are read, others go on."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.config.experiment import Experiment
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import continue_study, settled, start_study
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord

__all__ = ["load_quickstart", "run_study"]


def load_quickstart(overrides: Sequence[str]) -> Experiment:
    """Read the quickstart with ``KEY=VALUE`` changes."""
    presets = Presets()
    return load_experiment(presets.names("experiments")["quickstart"], presets, overrides)


def run_study(experiment: Experiment, folder: StudyFolder) -> StudyRecord:
    """Run a study to its end, or read it where an earlier call did."""
    if not folder.experiment.is_file():
        start_study(settled(Loaded.of(experiment), folder, Events()), folder)
    return continue_study(folder, Events())
