"""The progress of a search: a bar on a terminal, a line per interval otherwise."""

from __future__ import annotations

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
from evomerge.study.records import StudyRecord, TrialRecord, mean_value

__all__ = ["SearchProgress"]

_INTERVAL_S = 10.0  # between lines where there is no terminal


class SearchProgress:
    """Says what is happening, how far it is, how long it will take, and what is best so far.

    Args:
        study: As earlier drivers left it.
    """

    def __init__(self, study: StudyRecord) -> None:
        self._n_trials, self._objectives = study.n_trials, study.objectives
        self._done, self._failed, self._best = 0, 0, float("-inf")
        self._dropped = 0
        for trial in study.trials:
            self._count(trial)
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
        self._task: TaskID = self._bar.add_task(
            "", total=self._n_trials, completed=self._done, note=""
        )

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

    def phase(self, text: str) -> None:
        """Show what is being done now."""
        self._bar.update(self._task, description=text)
        if not notes.is_terminal:
            notes.print(text, soft_wrap=True)

    def told(self, trial: TrialRecord) -> None:
        """Count one finished trial."""
        self._count(trial)
        note = self._best_text() + (f" · {self._failed} failed" if self._failed else "")
        note += f" · {self._dropped} dropped early" if self._dropped else ""
        self._bar.update(self._task, completed=self._done, note=note)
        self._print_line(note)

    def _count(self, trial: TrialRecord) -> None:
        self._done += trial.state != "running"
        self._failed += trial.state == "failed"
        self._dropped += trial.state == "pruned"
        if trial.values:
            self._best = max(self._best, mean_value(trial.values, self._objectives))

    def _best_text(self) -> str:
        directions = {o.direction for o in self._objectives}
        if directions == {"maximize"}:
            return f"best mean {self._best:.3f}"
        if directions == {"minimize"}:
            return f"best mean {-self._best:.3f}"
        return f"best sum of directions {self._best:.3f}"

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
