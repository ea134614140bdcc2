"""What happens to workers beside outcomes: for the log, and some of it for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Happening", "Hear", "ignore"]


@dataclass(frozen=True)
class Happening:
    """One thing that happened to a worker.

    Attributes:
        kind: ``loaded``: it is ready. ``started``: it began with a trial. ``waiting``: its trial
            takes longer than usual. ``replaced``: it died or was given up, and another one starts.
            ``retried``: another worker began with the trial of one that was replaced.
        worker: Its number, from 0; one that takes another's place has a new one.
        trial: Its trial, if it has one.
        text: What people should know, in one line; empty: nothing.
    """

    kind: Literal["loaded", "started", "waiting", "replaced", "retried"]
    worker: int
    trial: int | None = None
    text: str = ""


Hear = Callable[[Happening], None]


def ignore(happening: Happening) -> None:
    """Hear nothing."""
