"""Run and resume: a study goes on until its budget is met, and callbacks hear of every trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path

from evomerge.api.callbacks import Callback, heard
from evomerge.api.loggers.base import logger_faults, make_logger
from evomerge.api.study import Study
from evomerge.config.load import Draft, ExperimentSource, draft_of
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, StudyError
from evomerge.progress import SearchProgress
from evomerge.runs.events import Events
from evomerge.runs.stages import change_run, continue_run, start_draft
from evomerge.runs.stored import read_experiment
from evomerge.study.folder import StudyFolder

__all__ = ["resume", "run"]


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
            run; every trial is kept, and ``resume`` continues. Loggers may be among them.
        events: Hears what happens: phases, trials, warnings. ``None`` shows it on standard error,
            as the command line does; ``Events()`` shows nothing.
        presets: Where names are looked up; those that ship.

    Returns:
        The study.

    Raises:
        ConfigError: Every fault of the experiment, before any model is loaded.
        StudyError: Another study is in the folder, or a callback raised.
    """
    folder = StudyFolder(_folder(experiment, dir))
    study = Study(folder)
    with _shown(events) as shown:
        shown.phase("reading the experiment")
        draft = _with_logger_faults(draft_of(experiment, set, presets))
        named = [] if draft.faults or draft.experiment is None else draft.experiment.loggers
        with heard(shown, [*callbacks, *map(make_logger, named)], study) as told:
            start_draft(draft, folder, told)
    return study


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
    folder = StudyFolder(Path(dir))
    change_run(folder, set, accept_changes=accept_changes)
    named = read_experiment(folder).loggers
    if faults := list(logger_faults(named)):
        raise ConfigError(*faults)
    loggers, study = map(make_logger, named), Study(folder)
    with _shown(events) as shown, heard(shown, [*callbacks, *loggers], study) as told:
        continue_run(folder, told, accept_changes=accept_changes)
    return study


@contextmanager
def _shown(events: Events | None) -> Iterator[Events]:
    if events is not None:
        yield events
        return
    with SearchProgress() as progress:
        yield progress.events


def _with_logger_faults(draft: Draft) -> Draft:
    """Find loggers that cannot be used with whatever else is wrong, before anything is loaded."""
    named = [] if draft.experiment is None else draft.experiment.loggers
    faults = map(draft.located, logger_faults(named))
    return replace(draft, faults=(*draft.faults, *faults))


def _folder(experiment: ExperimentSource, dir: str | PathLike[str] | None) -> Path:
    if dir is not None:
        return Path(dir)
    if isinstance(experiment, (str, PathLike)):
        return Path("runs") / Path(experiment).stem
    raise StudyError("expected dir, the folder of the study, since this experiment has no name")
