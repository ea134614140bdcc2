"""The resolved experiment in a study's folder: read, written, changed on resume.

In the file the winners of earlier stages are relative to it, so that a run's folder may be moved;
in memory they are absolute.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evomerge.config.experiment import Experiment
from evomerge.config.load import dump_experiment, experiment_digest
from evomerge.config.overrides import apply_overrides
from evomerge.errors import StudyError
from evomerge.models.reference import ModelRef
from evomerge.schema import parse, read_yaml
from evomerge.study.folder import StudyFolder, write_atomically

__all__ = ["change_experiment", "read_experiment", "write_experiment"]


def read_experiment(folder: StudyFolder) -> Experiment:
    """Read the resolved experiment of a study.

    Raises:
        ConfigError: The file is wrong.
        StudyError: No study here.
    """
    return _read(folder, read_yaml(folder.require().experiment))


def write_experiment(folder: StudyFolder, experiment: Experiment) -> None:
    """Write the resolved experiment of a study, whose folder exists."""
    root = folder.root.resolve()
    inside = _relocated(experiment, lambda path: os.path.relpath(path, root))
    write_atomically(folder.experiment, dump_experiment(inside))


def change_experiment(folder: StudyFolder, overrides: Sequence[str]) -> Experiment:
    """Apply overrides to the resolved experiment of a study, without writing it.

    Raises:
        ConfigError: An override is wrong.
        StudyError: An override would change what the study is about.
    """
    before = read_experiment(folder)
    after = _read(folder, apply_overrides(read_yaml(folder.experiment), overrides))
    if experiment_digest(after) != experiment_digest(before):
        raise StudyError(
            "expected overrides of budget, execution or finalists, which may change on resume, got "
            f"{', '.join(overrides)}; start a new study for another experiment"
        )
    return after


def _read(folder: StudyFolder, content: Mapping[str, Any]) -> Experiment:
    experiment = parse(Experiment, content, str(folder.experiment))
    return _relocated(experiment, lambda path: str((folder.root / path).resolve()))


def _relocated(experiment: Experiment, locate: Callable[[str], str]) -> Experiment:
    models = experiment.models
    if not models.winners:
        return experiment
    moved: dict[str, ModelRef] = {
        name: locate(str(folder)) for name, folder in models.located_winners().items()
    }
    models = models.model_copy(update={"experts": {**models.experts, **moved}})
    return experiment.model_copy(update={"models": models})
