"""Reads a run in its folder, going on or finished, without changing it."""

from __future__ import annotations

import platform
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from evomerge import __version__
from evomerge.config.experiment import Experiment
from evomerge.evaluation.store import ItemStore
from evomerge.runs.goals import constraints_of, objectives_of
from evomerge.runs.optuna_study import find_study, ledger_of, store_name
from evomerge.runs.stored import read_experiment
from evomerge.runs.wholeness import require_store
from evomerge.secrets import without_secrets
from evomerge.study.constraints import unenforced
from evomerge.study.evaluations import is_used_up
from evomerge.study.finals_file import read_finals
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord
from evomerge.study.timing import read_timing

if TYPE_CHECKING:
    import optuna
    import pandas as pd

__all__ = [
    "Results",
    "begun_stages",
    "experiment_data",
    "is_finished",
    "latest_results",
    "latest_study",
    "package_versions",
    "read_study",
    "stage_studies",
]


_PACKAGES = ("torch", "transformers", "lm-eval", "optuna")


@dataclass(frozen=True)
class Results:
    """What a run has found so far.

    Attributes:
        folder: The study that it is read from.
        study: Its trials and finals.
    """

    folder: StudyFolder
    study: StudyRecord

    @cached_property
    def items(self) -> pd.DataFrame:
        """Every item score, see ``ItemStore.read``; read on first use."""
        return self.items_of(None)

    def items_of(self, trials: Collection[int] | None) -> pd.DataFrame:
        """Read the item scores of some trials; see ``ItemStore.read``."""
        return ItemStore(self.folder.items).read(trials)


def latest_results(folder: StudyFolder) -> Results:
    """Read the results of a run, from the study of the last stage that has begun.

    Raises:
        StudyError: No study here, or its trials are gone.
    """
    latest = latest_study(folder)
    return Results(latest, read_study(latest))


def read_study(folder: StudyFolder, opened: optuna.Study | None = None) -> StudyRecord:
    """Read a study, running or finished, without changing it.

    Args:
        folder: Where it is.
        opened: It, if this process has opened it: what was read of its journal is not read again.

    Raises:
        StudyError: No study here, or its trials are gone.
    """
    experiment = read_experiment(folder)
    constraints = constraints_of(experiment)
    found = opened or find_study(folder, experiment)
    trials = () if found is None else ledger_of(found, folder, experiment).records()
    require_store(folder, store_name(folder, experiment), trials)
    objectives, n_trials = objectives_of(experiment), experiment.budget.trials
    finals = read_finals(folder.finals, len(objectives))
    return StudyRecord(
        name=folder.name,
        objectives=objectives,
        trials=trials,
        finals=finals.records,
        n_trials=n_trials,
        constraints=tuple(constraint.name for constraint in constraints),
        unenforced=unenforced(constraints, trials, n_trials, finals.records),
        report_only=finals.report_only,
    )


def experiment_data(folder: StudyFolder) -> dict[str, object]:
    """Read the resolved experiment of a study as plain data, without passwords.

    Raises:
        StudyError: No study here.
    """
    found = read_experiment(folder)
    content = found.model_dump(exclude_unset=True, mode="json")
    storage = {} if found.storage is None else {"storage": without_secrets(found.storage)}
    return {**content, **storage}


def package_versions() -> dict[str, str]:
    """Name the versions of what scores and searches, as they are on this machine."""
    installed = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return {"evomerge": __version__, **installed, "python": platform.python_version()}


def is_finished(folder: StudyFolder, known: StudyRecord | None = None) -> bool:
    """Tell whether a run has used up its budget, in all its stages, and has had its finals.

    Args:
        folder: Where it is.
        known: The study without stages that is there, if it was read already.

    Raises:
        StudyError: No study here, or its trials are gone.
    """
    experiment = read_experiment(folder)
    if experiment.stages:
        begun = begun_stages(folder, experiment)
        return len(begun) == len(experiment.stages) and is_finished(begun[-1])
    study, budget = known or read_study(folder), experiment.budget
    is_running = any(t.state == "running" for t in study.trials)
    out_of_trials = is_used_up(study.evaluations, budget.trials)
    limit = budget.wall_clock
    out_of_time = limit is not None and read_timing(folder.timing)["elapsed"] >= limit
    has_finals = bool(study.finals) or experiment.finalists == 0
    return (out_of_trials or out_of_time) and not is_running and has_finals


def stage_studies(folder: StudyFolder) -> tuple[StudyFolder, ...]:
    """List the studies of a run that have begun: of its stages, or just the folder itself.

    Raises:
        StudyError: No study here.
    """
    return begun_stages(folder, read_experiment(folder)) or (folder,)


def latest_study(folder: StudyFolder) -> StudyFolder:
    """Find the study that a run's results are read from: that of the last stage that has begun.

    Raises:
        StudyError: No study here.
    """
    return stage_studies(folder)[-1]


def begun_stages(folder: StudyFolder, experiment: Experiment) -> tuple[StudyFolder, ...]:
    """List the stages of an experiment that have begun; none where it has no stages."""
    inside = [folder.stage(number + 1) for number in range(len(experiment.stages))]
    return tuple(one for one in inside if one.experiment.is_file())
