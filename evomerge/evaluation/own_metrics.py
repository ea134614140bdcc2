"""Metrics of one's own: what an evaluator's key ``metrics`` says, and what they see and yield."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation.code_runs import Runs
from evomerge.evaluation.judge import Judge
from evomerge.evaluation.own_functions import call, find_function
from evomerge.evaluation.scored_items import AnsweredItem, OwnScore

__all__ = ["NOISE", "OwnMetric"]

NOISE = "_noise"
"""Ends the name of the metric that tells how far verdicts on one answer differ."""

_KINDS = ("file", "entry_point", "judge", "runs")


@dataclass(frozen=True)
class OwnMetric:
    """How one metric is made of an item and what a model answered; exactly one of the first four.

    Attributes:
        file: A Python file with the function; runs only where the suite allows code.
        entry_point: A name in the group ``evomerge.metrics``, of an installed package.
        judge: A language model that is asked.
        runs: Code that is run, answer and tests; only where the suite allows code.
        name: The function in ``file``; absent: called as the metric.
        higher_is_better: Which way it gets better.
        tasks: Those of the suite that have it, or groups of them; absent: all.
        timeout: Seconds that a function may take when it is tried, before it is held for one that
            never returns; absent: 60.
    """

    file: str | None = None
    entry_point: str | None = None
    judge: Judge | None = None
    runs: Runs | None = None
    name: str | None = None
    higher_is_better: bool = True
    tasks: tuple[str, ...] | None = None
    timeout: Annotated[float, Field(gt=0, le=86400)] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"expected one of {', '.join(_KINDS)}, got {got}")
        if self.name is not None and self.file is None:
            raise ValueError("expected name, of a function, only beside file")
        if self.timeout is not None and self.reads_texts:
            raise ValueError("expected timeout, of a function, only beside file or entry_point")

    @property
    def reads_texts(self) -> bool:
        """Whether it is about what a model writes, so that only tasks that generate have it."""
        return self.judge is not None or self.runs is not None

    @property
    def has_noise(self) -> bool:
        """Whether items are scored several times, so that their scores' spread is known."""
        return self.judge is not None and self.judge.samples > 1

    def faults(self, metric: str, *, allow_code: bool) -> Iterator[Fault]:
        """Find what is wrong before any item is scored; loads the function if it may run.

        Args:
            metric: What it is called.
            allow_code: Whether the suite allows code.
        """
        if self.judge is not None:
            yield from (fault.under("judge") for fault in self.judge.faults())
        if self.runs is not None:
            if not allow_code:
                text = "would run code that models write; set allow_code: true if you want that"
                yield Fault(("runs",), text)
            yield from (fault.under("runs") for fault in self.runs.faults())
        if self.file is not None and not Path(self.file).is_file():
            yield Fault(("file",), f"expected a Python file, found none at {self.file}")
        elif self.file is not None and not allow_code:
            text = f"would run code ({self.file}); set allow_code: true if you trust it"
            yield Fault(("file",), text)
        elif not self.reads_texts:
            try:
                find_function(self.file, self.entry_point, self.name or metric, anew=True)
            except EvaluationError as err:
                yield from err.faults

    def scores(
        self, metric: str, items: Sequence[AnsweredItem], *, is_patient: bool = True
    ) -> list[OwnScore]:
        """Score items, in order.

        Args:
            metric: What it is called.
            items: Of one task, with one filter's answers.
            is_patient: Whether a judge that does not reply is waited for.

        Raises:
            EvaluationError: An item has no score; names metric, task and item.
        """
        if self.judge is not None:
            return self.judge.scores(metric, items, is_patient=is_patient)
        if self.runs is not None:
            return self.runs.scores(metric, items)
        function = find_function(self.file, self.entry_point, self.name or metric)
        return [OwnScore(call(function, metric, item)) for item in items]
