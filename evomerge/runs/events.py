"""How a run tells a person what is happening."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evomerge.errors import Fault
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Events"]


@dataclass(frozen=True)
class Events:
    """Callbacks that tell a person how the run goes.

    Attributes:
        phase: Called with what is being done now.
        part: Called during a long phase with what is counted, how many are done, and of how many.
        told: Called with each finished trial.
        warned: Called with what the person should look into while the run goes on.
        noted: Called with what was decided in the person's place.
        faulty: Called with what is wrong with an experiment file, before its parts are looked at.
        busy: Called after each trial with the share of the workers' time that went into trials.
        began: Called with a study, as earlier drivers left it, before it is continued.
    """

    phase: Callable[[str], None] = lambda text: None
    part: Callable[[str, int, int], None] = lambda text, done, total: None
    told: Callable[[TrialRecord], None] = lambda trial: None
    warned: Callable[[str], None] = lambda text: None
    noted: Callable[[str], None] = lambda text: None
    faulty: Callable[[Sequence[Fault]], None] = lambda faults: None
    busy: Callable[[float], None] = lambda share: None
    began: Callable[[StudyRecord], None] = lambda study: None
