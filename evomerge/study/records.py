"""What a study knows, as plain records: the only thing analysis, report, export and CLI read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np

from evomerge.evaluation.scores import Sample
from evomerge.execution.costs import COST, COSTS, SHARES, Cost
from evomerge.origins import is_baseline
from evomerge.study.evaluations import summed

__all__ = [
    "Direction",
    "FinalRecord",
    "FinalSplit",
    "Objective",
    "Partial",
    "ReportOnly",
    "StudyRecord",
    "TrialRecord",
    "TrialStateName",
    "has_mean",
    "make_objectives",
    "mean_name",
    "merits",
    "scales",
    "shares",
]

Direction = Literal["maximize", "minimize"]
TrialStateName = Literal["complete", "failed", "pruned", "running"]
FinalSplit = Literal["validation", "test", "report_only"]


@dataclass(frozen=True)
class Objective:
    """One metric of one task, and which way is better.

    Attributes:
        task: lm-eval task or group name.
        metric: Metric name as lm-eval prints it, with ``,filter`` unless the filter is ``none``.
        direction: ``maximize`` or ``minimize``.
        name: Short unique label for tables and plots.
        preference: How much it counts beside the others where they are summed.
    """

    task: str
    metric: str
    direction: Direction
    name: str
    preference: float = 1.0

    @property
    def sign(self) -> float:
        """Multiplies values so that larger is better: 1, or -1 where they are minimised."""
        return 1.0 if self.direction == "maximize" else -1.0

    @property
    def heading(self) -> str:
        """Its name above a column; lower is better where an arrow points down."""
        return self.name + (" ↓" if self.direction == "minimize" else "")

    @property
    def is_cost(self) -> bool:
        """Whether it is a cost, in a unit of its own, rather than a score."""
        return self.task == COST

    @property
    def is_share(self) -> bool:
        """Whether it is a cost between 0 and 1."""
        return self.is_cost and Cost.of(self.metric).name in SHARES

    @property
    def meaning(self) -> str:
        """What a cost is, with its unit; nothing of a score."""
        return COSTS.get(Cost.of(self.metric).name, "") if self.is_cost else ""


def make_objectives(
    wanted: Sequence[tuple[str, str, Direction]], preferences: Sequence[float | None] = ()
) -> tuple[Objective, ...]:
    """Build objectives with unique names.

    Args:
        wanted: Task, metric and direction of each.
        preferences: How much each counts; ``None``: 1. Empty: all alike.
    """
    tasks = [task for task, _, _ in wanted]
    counts = [1.0 if p is None else p for p in preferences] or [1.0] * len(wanted)
    return tuple(
        Objective(task, metric, direction, _objective_name(task, metric, tasks), counts[i])
        for i, (task, metric, direction) in enumerate(wanted)
    )


def _objective_name(task: str, metric: str, tasks: Sequence[str]) -> str:
    """Name an objective: the task, with the metric where the task has several objectives.

    A cost goes by its metric alone.
    """
    if task == COST:
        return metric
    return task if list(tasks).count(task) == 1 else f"{task}/{metric}"


def has_mean(objectives: Sequence[Objective]) -> bool:
    """Tell whether a mean over the objectives says something: scores that point the same way."""
    one_way = len({o.direction for o in objectives}) == 1
    return len(objectives) == 1 or (one_way and not any(o.is_cost for o in objectives))


def shares(objectives: Sequence[Objective]) -> list[float]:
    """Say how much each objective counts in a mean; sums to 1."""
    total = sum(o.preference for o in objectives)
    return [o.preference / total for o in objectives]


def mean_name(objectives: Sequence[Objective]) -> str:
    """Say what the mean over the objectives is called."""
    return "mean" if len({o.preference for o in objectives}) == 1 else "weighted mean"


def scales(rows: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> list[float]:
    """Say what values are divided by so that no objective outweighs the others by its unit.

    Args:
        rows: Values per objective, one row per model.
        objectives: In the order of the values.

    Returns:
        One per objective: 1 where the objectives have a mean, else the range of the rows.
    """
    if has_mean(objectives) or not rows:
        return [1.0] * len(objectives)
    return [(max(column) - min(column)) or 1.0 for column in zip(*rows, strict=True)]


def merits(
    rows: Sequence[Sequence[float]],
    objectives: Sequence[Objective],
    units: Sequence[float] | None = None,
) -> list[float]:
    """Rate models that compete with one another by one number each; more is better.

    Args:
        rows: Values per objective, one row per model.
        objectives: In the order of the values.
        units: What values are divided by first; ``None``: the ``scales`` of the rows.

    Returns:
        The mean of each row, in which minimised values count negatively.
    """
    units = units or scales(rows, objectives)
    total, table = np.zeros(len(rows)), np.array(rows, dtype=float).reshape(len(rows), len(units))
    with np.errstate(invalid="ignore"):
        for column, share, o, unit in zip(
            table.T, shares(objectives), objectives, units, strict=True
        ):
            total += share * o.sign * (column / unit)
    found: list[float] = total.tolist()
    return found


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


class _Constrained:
    """A record with its violations, one per constraint."""

    __slots__ = ()
    violations: tuple[float, ...]

    @property
    def violation(self) -> float:
        """All that is violated, added up; 0 if nothing is."""
        return sum([max(0.0, v) for v in self.violations]) if self.violations else 0.0

    @property
    def is_feasible(self) -> bool:
        """Whether no constraint is violated."""
        return self.violation == 0


@dataclass(slots=True)  # a frozen one takes six times as long to make, seen where they are many
class TrialRecord(_Constrained):
    """One trial, finished or not; nobody changes it.

    Attributes:
        number: Trial number in the study, from 0.
        state: ``complete``, ``failed``, ``pruned`` or ``running``.
        origin: Of a baseline as in ``origins``, or ``search``.
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
        violations: Per constraint how far it is violated, as a share of the bound; above 0 means
            infeasible. Empty without constraints.
        n_scores: Item scores that were stored with it.
        driver: Id of the driver that ran it; ``None`` in a journal file.
        device: What the candidate ran on when it was scored; ``None`` if that is not known.
        samples: An item by objective, as it was answered; only of baselines.
        evaluations: What it costs, or may cost while it runs; see ``study.evaluations``.
        has_climbed: Whether it went on along slopes once it was scored.
        climb_error: Why that failed.
        pull: How strongly the climb that led here drew genes together; ``None`` if none did.
    """

    number: int
    state: TrialStateName
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
    violations: tuple[float, ...] = ()
    n_scores: int = 0
    driver: str | None = None
    device: str | None = None
    samples: Mapping[str, Sample] = field(default_factory=dict)
    evaluations: float = 1.0
    has_climbed: bool = False
    climb_error: str | None = None
    pull: float | None = None


@dataclass(frozen=True)
class FinalRecord(_Constrained):
    """A baseline or a finalist scored on items the search never saw.

    Attributes:
        number: Trial number.
        origin: The trial's origin.
        split: ``validation`` (picks among finalists), ``test`` (reported) or ``report_only``.
        values: One per objective; of ``report_only`` records one per measure of the report.
        stderr: Standard error beside each value.
        chosen: Whether validation picked this trial, a merge or a baseline.
        violations: As those of a trial, on the items of this split.
    """

    number: int
    origin: str
    split: FinalSplit
    values: tuple[float, ...]
    stderr: tuple[float, ...]
    chosen: bool
    violations: tuple[float, ...] = ()


@dataclass(frozen=True)
class ReportOnly:
    """Scores on tasks that the search never saw: what its merges have forgotten.

    Attributes:
        measures: Every metric of those tasks; objectives in form only.
        records: The base, the experts, the uniform average and the best merge.
    """

    measures: tuple[Objective, ...] = ()
    records: tuple[FinalRecord, ...] = ()


@dataclass(frozen=True)
class StudyRecord:
    """A whole study as it stands.

    Attributes:
        name: The study folder's name.
        objectives: What the search trades off, in order.
        trials: Every trial by number.
        finals: Held-out scores; empty until the search has finished.
        n_trials: The budget, in evaluations.
        constraints: What trials must keep, for people, in the order of their violations.
        unenforced: Those that hold nothing, and why, for people; see ``study.constraints``.
        report_only: Empty until the search has finished, or without such tasks.
    """

    name: str
    objectives: tuple[Objective, ...]
    trials: tuple[TrialRecord, ...]
    finals: tuple[FinalRecord, ...]
    n_trials: int
    constraints: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()
    report_only: ReportOnly = ReportOnly()

    @property
    def evaluations(self) -> float:
        """What its trials cost, counted against the budget; see ``study.evaluations``."""
        return summed(trial.evaluations for trial in self.trials)

    @cached_property
    def noun(self) -> str:
        """What is held against the baselines, in a word: ``merge`` or ``ensemble``.

        ``candidate`` if it is both. A search makes one of them: the recipe of its first trial is
        looked at, and those of seeds.
        """
        found = {t.origin: t for t in reversed(self.trials) if t.state == "complete"}
        others = [trial for origin, trial in found.items() if not is_baseline(origin)]
        nouns = {"ensemble" if "ensemble" in trial.recipe else "merge" for trial in others}
        return "candidate" if len(nouns) > 1 else next(iter(nouns), "merge")

    @cached_property
    def derived(self) -> dict[object, Any]:
        """What was computed from it, see ``analysis.once``; kept as long as the record is."""
        return {}
