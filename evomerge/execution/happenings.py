"""What happens to workers beside outcomes: for the log, and some of it for people."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

__all__ = ["Happening", "Hear", "ignore", "warnings_collected"]


@dataclass(frozen=True)
class Happening:
    """One thing that happened to a worker.

    Attributes:
        kind: ``loaded``: it is ready. ``started``: it began with a trial. ``waiting``: its trial
            takes longer than usual. ``replaced``: it died or was given up, and another one starts.
            ``retried``: another worker began with the trial of one that was replaced. ``warned``:
            it has something to say.
        worker: Its number, from 0; one that takes another's place has a new one.
        trial: Its trial, if it has one.
        text: What people should know, in one line; empty: nothing.
    """

    kind: Literal["loaded", "started", "waiting", "replaced", "retried", "warned"]
    worker: int
    trial: int | None = None
    text: str = ""


Hear = Callable[[Happening], None]


@contextmanager
def warnings_collected() -> Iterator[list[str]]:
    """Collect what is logged as a warning inside: what workers log is seen by nobody else."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler, logger = Collect(logging.WARNING), logging.getLogger("evomerge")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def ignore(happening: Happening) -> None:
    """Hear nothing."""
