"""The resolved experiment in a study's folder: read, written, changed on resume.

Studies of before there were schema versions are known by the digest in the first line of the file,
whose rule is gone; it stays there for as long as their storage knows no other.

In the file the winners of earlier stages, and prompts, are relative to it, so that a run's folder
may be moved; in memory they are absolute.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.config.experiment import Experiment, ModelsConfig
from evomerge.config.load import dump_experiment, experiment_digest
from evomerge.config.overrides import apply_overrides
from evomerge.config.places import with_models_at
from evomerge.errors import StudyError
from evomerge.models.reference import absolute_reference
from evomerge.plain_yaml import placed_in
from evomerge.recipe.path import BASE
from evomerge.schema import parse, read_yaml
from evomerge.study.folder import StudyFolder, write_atomically

__all__ = ["change_experiment", "early_digest", "read_experiment", "write_experiment"]

_EARLY_DIGEST = re.compile(r"# digest: (?P<digest>[0-9a-f]{16})\s")


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
    write_atomically(folder.experiment, dump_experiment(inside, early_digest(folder)))


def early_digest(folder: StudyFolder) -> str | None:
    """Read the digest of a study of before there were schema versions; ``None`` for any other."""
    if not folder.experiment.is_file():
        return None
    with folder.experiment.open(encoding="utf-8") as file:
        found = _EARLY_DIGEST.match(file.readline())
    return None if found is None else found["digest"]


def change_experiment(folder: StudyFolder, overrides: Sequence[str]) -> Experiment:
    """Apply overrides to the resolved experiment of a study, without writing it.

    Raises:
        ConfigError: An override is wrong.
        StudyError: An override would change what the study is about.
    """
    before = read_experiment(folder)
    after = _read(folder, apply_overrides(read_yaml(folder.experiment), overrides))
    after = _moved(before.models, after)
    if experiment_digest(after) != experiment_digest(before) or after.storage != before.storage:
        raise StudyError(
            "expected overrides of budget, execution, finalists, loggers or of where models are, "
            f"which may change on resume, got {', '.join(overrides)}; start a new study for "
            "another experiment"
        )
    return after


def _moved(before: ModelsConfig, after: Experiment) -> Experiment:
    """Take the new places of models as a command gives them: relative to the current folder."""
    old, models = before.located(), after.models
    places = {
        name: absolute_reference(place, Path.cwd())
        for name, place in models.located().items()
        if place != old.get(name, place)
    }
    experts = {name: old.get(name, place) for name, place in models.experts.items()}
    models = models.model_copy(update={BASE: old[BASE], "experts": experts})
    return with_models_at(after.model_copy(update={"models": models}), places)


def _read(folder: StudyFolder, content: Mapping[str, Any]) -> Experiment:
    with placed_in(folder.experiment):
        experiment = parse(Experiment, content)
    return _relocated(experiment, lambda path: str((folder.root / path).resolve()))


def _relocated(experiment: Experiment, locate: Callable[[str], str]) -> Experiment:
    models, prompts = experiment.models, experiment.prompts
    if prompts.file is not None:
        prompts = prompts.model_copy(update={"file": locate(prompts.file)})
        experiment = experiment.model_copy(update={"prompts": prompts})
    return with_models_at(
        experiment, {name: locate(str(models.experts[name])) for name in models.winners}
    )
