"""Run and resume: a study goes on until its budget is met, and callbacks hear of every trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from evomerge.api.study import Study
from evomerge.config.load import ExperimentSource, draft_of
from evomerge.config.presets import Presets
from evomerge.errors import StudyError
from evomerge.runs.events import Events
from evomerge.runs.stages import change_run, continue_run, start_draft
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord

__all__ = ["Callback", "resume", "run"]

Callback = Callable[[Study, TrialRecord], None]
"""Called in the driver after each finished trial, as Optuna's callbacks are."""


def run(
    experiment: ExperimentSource,
    dir: str | PathLike[str] | None = None,
    *,
    set: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    events: Events | None = None,
    presets: Presets | None = None,
) -> Study:
    """Start a study and run it until its budget is met.

    Args:
        experiment: A file, the name of a preset, its keys, or an experiment that is loaded.
        dir: Study folder; of a file or preset ``runs/NAME``.
        set: ``KEY=VALUE`` changes.
        callbacks: Called with (study, trial) after each finished trial. One that raises stops the
            run; every trial is kept, and ``resume`` continues.
        events: Hears what happens beside trials: phases, warnings.
        presets: Where names are looked up; those that ship.

    Returns:
        The study.

    Raises:
        ConfigError: Every fault of the experiment, before any model is loaded.
        StudyError: Another study is in the folder, or a callback raised.
    """
    folder, events = StudyFolder(_folder(experiment, dir)), events or Events()
    events.phase("reading the experiment")
    draft = draft_of(experiment, set, presets)
    start_draft(draft, folder, _with_callbacks(events, callbacks, folder))
    return Study(folder)


def resume(
    dir: str | PathLike[str],
    *,
    set: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    accept_changes: bool = False,
    events: Events | None = None,
) -> Study:
    """Continue a study: finished trials stay, unfinished ones run again.

    Args:
        dir: Study folder.
        set: ``KEY=VALUE`` changes of budget, execution, finalists, or where models are.
        callbacks: See ``run``; of the trials that are told from now on.
        accept_changes: Go on although models or items changed: trials before and after differ.
        events: See ``run``.

    Returns:
        The study.

    Raises:
        ConfigError: The experiment does not fit together any more.
        StudyError: No study here, or it is in use, or a change would make it another one; or a
            callback raised.
    """
    folder, events = StudyFolder(Path(dir)), events or Events()
    change_run(folder, set, accept_changes=accept_changes)
    heard = _with_callbacks(events, callbacks, folder)
    continue_run(folder, heard, accept_changes=accept_changes)
    return Study(folder)


def _folder(experiment: ExperimentSource, dir: str | PathLike[str] | None) -> Path:
    if dir is not None:
        return Path(dir)
    if isinstance(experiment, (str, PathLike)):
        return Path("runs") / Path(experiment).stem
    raise StudyError("expected dir, the folder of the study, since this experiment has no name")


def _with_callbacks(events: Events, callbacks: Sequence[Callback], folder: StudyFolder) -> Events:
    """Let callbacks hear of finished trials after whoever else does."""
    study = Study(folder)

    def told(trial: TrialRecord) -> None:
        events.told(trial)
        for callback in callbacks:
            _call(callback, study, trial)

    return replace(events, told=told)


def _call(callback: Callback, study: Study, trial: TrialRecord) -> None:
    try:
        callback(study, trial)
    except Exception as err:  # border: a user's own code
        name = getattr(callback, "__name__", type(callback).__name__)
        reason = " ".join(str(err).split())
        raise StudyError(
            f"the callback {name} raised {type(err).__name__}({reason}) after trial "
            f"{trial.number}; every trial is kept: 'evomerge resume {study.dir}', or "
            "evomerge.resume with callbacks, continues"
        ) from err
