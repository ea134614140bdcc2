"""Callbacks and loggers of a run: who hears what, and what becomes of it when one raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from evomerge.api.loggers.base import Logger
from evomerge.api.study import Study
from evomerge.errors import StudyError
from evomerge.runs.events import Events
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Callback", "heard"]

Callback = Callable[[Study, TrialRecord], None]
"""Called in the driver after each finished trial, as Optuna's callbacks are."""


@contextmanager
def heard(events: Events, callbacks: Sequence[Callback], study: Study) -> Iterator[Events]:
    """Let callbacks hear of a run, after whoever else does.

    Args:
        events: Who else.
        callbacks: Those that are loggers also hear of the beginning and the end.
        study: What they are called with.

    Yields:
        What the run tells.
    """
    audience = _Audience(events, callbacks, study)
    try:
        yield replace(events, began=audience.began, told=audience.told)
    finally:
        audience.end()


class _Audience:
    """The callbacks of a run, and its loggers that have not failed yet."""

    def __init__(self, events: Events, callbacks: Sequence[Callback], study: Study) -> None:
        self._events, self._study = events, study
        self._loggers = [one for one in callbacks if isinstance(one, Logger)]
        self._callbacks = [one for one in callbacks if not isinstance(one, Logger)]
        self._has_begun = False

    def began(self, record: StudyRecord) -> None:
        self._events.began(record)
        self._has_begun = True
        self._tell(lambda logger: logger.begin(self._study, record))

    def told(self, trial: TrialRecord) -> None:
        self._events.told(trial)
        self._tell(lambda logger: logger(self._study, trial))  # also of what a callback stops at
        for callback in self._callbacks:
            _call(callback, self._study, trial)

    def end(self) -> None:
        if self._has_begun:
            self._tell(lambda logger: logger.end(self._study))

    def _tell(self, say: Callable[[Logger], None]) -> None:
        for logger in tuple(self._loggers):
            try:
                say(logger)
            except Exception as err:  # border: a tracker that is out of reach ends no search
                self._loggers.remove(logger)
                self._events.warned(
                    f"{_name(logger)} failed and hears no more of this run: {_line(err)}"
                )


def _call(callback: Callback, study: Study, trial: TrialRecord) -> None:
    try:
        callback(study, trial)
    except Exception as err:  # border: a user's own code
        raise StudyError(
            f"the callback {_name(callback)} raised {_line(err)} after trial {trial.number}; every "
            f"trial is kept: 'evomerge resume {study.dir}', or evomerge.resume with callbacks, "
            "continues"
        ) from err


def _name(callback: object) -> str:
    return str(getattr(callback, "__name__", type(callback).__name__))


def _line(err: Exception) -> str:
    return f"{type(err).__name__}({' '.join(str(err).split())})"
