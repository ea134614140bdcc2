"""The progress of a search: a bar on a terminal, a line per interval otherwise."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from evomerge.cli.terminal import notes
from evomerge.study.records import Objective, StudyRecord, TrialRecord, has_mean, mean_value

__all__ = ["SearchProgress"]

_INTERVAL_S = 10.0  # between lines where there is no terminal


class SearchProgress:
    """Says what is happening, how far it is, how long it will take, and what is best so far."""

    def __init__(self) -> None:
        self._n_trials = 0
        self._objectives: tuple[Objective, ...] = ()
        self._done, self._failed, self._best = 0, 0, float("-inf")
        self._started, self._last_line = time.monotonic(), 0.0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("trials ·"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(compact=True),
            TextColumn("· {task.fields[note]}"),
            console=notes,
            transient=True,
            disable=not notes.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("", total=None, note="")

    def __enter__(self) -> SearchProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def began(self, study: StudyRecord) -> None:
        """Follow a study from where earlier drivers left it."""
        self._n_trials, self._objectives = study.n_trials, study.objectives
        self._done, self._failed, self._best = 0, 0, float("-inf")
        for trial in study.trials:
            self._count(trial)
        self._started = time.monotonic()
        self._bar.update(self._task, total=self._n_trials, completed=self._done, note="")

    def phase(self, text: str) -> None:
        """Show what is being done now."""
        self._bar.update(self._task, description=text)
        if not notes.is_terminal:
            notes.print(text, soft_wrap=True)

    def told(self, trial: TrialRecord) -> None:
        """Count one finished trial."""
        self._count(trial)
        failed = f"{self._failed} failed" if self._failed else ""
        note = " · ".join(filter(None, (self._best_text(), failed)))
        self._bar.update(self._task, completed=self._done, note=note)
        self._print_line(note)

    def _count(self, trial: TrialRecord) -> None:
        self._done += trial.state != "running"
        self._failed += trial.state == "failed"
        if trial.values and trial.is_feasible:
            self._best = max(self._best, mean_value(trial.values, self._objectives))

    def _best_text(self) -> str:
        """The best mean so far, where the objectives have one."""
        if not has_mean(self._objectives) or math.isinf(self._best):
            return ""
        sign = 1 if self._objectives[0].direction == "maximize" else -1
        return f"best mean {sign * self._best:.3f}"

    def _print_line(self, note: str) -> None:
        now = time.monotonic()
        is_last = self._done == self._n_trials
        if notes.is_terminal or (now - self._last_line < _INTERVAL_S and not is_last):
            return
        self._last_line = now
        seconds = now - self._started
        notes.print(
            f"{self._done}/{self._n_trials} trials · {seconds:.0f} s · {note}", soft_wrap=True
        )
