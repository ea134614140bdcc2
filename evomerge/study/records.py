"""What a study knows, as plain records: the only thing analysis, report, export and CLI read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

__all__ = ["FinalRecord", "Objective", "Partial", "StudyRecord", "TrialRecord", "mean_value"]


@dataclass(frozen=True)
class Objective:
    """One metric of one task, and which way is better.

    Attributes:
        task: lm-eval task or group name.
        metric: Metric name as lm-eval prints it, with ``,filter`` unless the filter is ``none``.
        direction: ``maximize`` or ``minimize``.
        name: Short unique label for tables and plots.
    """

    task: str
    metric: str
    direction: Literal["maximize", "minimize"]
    name: str


def mean_value(values: Sequence[float], objectives: Sequence[Objective]) -> float:
    """Average values over objectives so that more is better: minimised ones count negatively."""
    signs = [1.0 if o.direction == "maximize" else -1.0 for o in objectives]
    return sum(s * v for s, v in zip(signs, values, strict=True)) / len(signs)


@dataclass(frozen=True)
class Partial:
    """What a trial would have scored, predicted when it was dropped from a race.

    Attributes:
        values: One per objective.
        stderr: Standard error of the prediction.
        n_items: Items behind each.
    """

    values: tuple[float, ...]
    stderr: tuple[float, ...]
    n_items: tuple[int, ...]


@dataclass(frozen=True)
class TrialRecord:
    """One trial, finished or not.

    Attributes:
        number: Trial number in the study, from 0.
        state: ``complete``, ``failed``, ``pruned`` or ``running``.
        origin: ``base``, ``expert:NAME``, ``uniform``, ``seed`` or ``search``.
        values: One per objective, in objective order; empty unless complete.
        stderr: Standard error beside each value; NaN where the metric has none.
        params: The sampler's active params; empty for a baseline the space cannot express.
        recipe: The recipe as YAML-ready data; empty if none was built.
        seconds: Time per phase: ``ask``, ``merge``, ``evaluate``, ``tell``.
        error: Why it failed or was pruned.
        started: When it was asked.
        finished: When it was told.
        n_items: Items behind each value.
        partial: Only of a trial that was dropped from a race.
    """

    number: int
    state: Literal["complete", "failed", "pruned", "running"]
    origin: str
    values: tuple[float, ...]
    stderr: tuple[float, ...]
    params: Mapping[str, float | int | str]
    recipe: Mapping[str, object]
    seconds: Mapping[str, float]
    error: str | None
    started: datetime | None
    finished: datetime | None
    n_items: tuple[int, ...] = ()
    partial: Partial | None = None


@dataclass(frozen=True)
class FinalRecord:
    """A baseline or a finalist scored on items the search never saw.

    Attributes:
        number: Trial number.
        origin: The trial's origin.
        split: ``validation`` (picks among finalists) or ``test`` (reported).
        values: One per objective.
        stderr: Standard error beside each value.
        chosen: Whether validation picked this trial.
    """

    number: int
    origin: str
    split: Literal["validation", "test"]
    values: tuple[float, ...]
    stderr: tuple[float, ...]
    chosen: bool


@dataclass(frozen=True)
class StudyRecord:
    """A whole study as it stands.

    Attributes:
        name: The study folder's name.
        objectives: What the search trades off, in order.
        trials: Every trial by number.
        finals: Held-out scores; empty until the search has finished.
        n_trials: The budget.
    """

    name: str
    objectives: tuple[Objective, ...]
    trials: tuple[TrialRecord, ...]
    finals: tuple[FinalRecord, ...]
    n_trials: int
