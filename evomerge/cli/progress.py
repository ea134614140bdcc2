"""The progress of long work: a bar on a terminal, a line per interval otherwise."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from evomerge.cli.terminal import notes
from evomerge.study.evaluations import is_used_up
from evomerge.study.records import Objective, StudyRecord, TrialRecord, has_mean, mean_value

__all__ = ["PassProgress", "SearchProgress", "progress_bar"]

_INTERVAL_S = 10.0  # between lines where there is no terminal


def progress_bar() -> Progress:
    """Make a bar: what is done, how much of it, how long it takes; hidden without a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[count]} ·"),
        TimeElapsedColumn(),
        TextColumn("· left"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )


class PassProgress:
    """Says how far one pass over tensors or models is; a callback of (done, total).

    Args:
        bar: Where its line is shown, until it is complete.
        text: What the pass does.
    """

    def __init__(self, bar: Progress, text: str) -> None:
        self._bar, self._text = bar, text
        self._task = bar.add_task(text, total=None, count="", note="")
        self._started = self._last_line = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is done."""
        share = f"{done / total:.0%}"
        self._bar.update(self._task, completed=done, total=total, count=share, visible=done < total)
        now = time.monotonic()
        if not notes.is_terminal and now - self._last_line >= _INTERVAL_S:
            self._last_line, seconds = now, now - self._started
            left = _duration(seconds * (total - done) / done)
            notes.print(f"{self._text}: {share} · {_duration(seconds)} · left {left}")


class SearchProgress:
    """Says what is happening, how far it is, how long it will take, and what is best so far."""

    def __init__(self) -> None:
        self._n_trials = 0
        self._objectives: tuple[Objective, ...] = ()
        self._done, self._failed, self._dropped, self._best = 0, 0, 0, float("-inf")
        self._used = 0.0  # of the budget, by what is done
        self._first_told: tuple[float, float] | None = None  # when, and what was used then
        self._started, self._last_line = time.monotonic(), 0.0
        self._bar = progress_bar()
        self._task: TaskID = self._bar.add_task("", total=None, count="", note="")
        self._parts: dict[str, PassProgress] = {}

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
        self._done, self._failed, self._dropped, self._best = 0, 0, 0, float("-inf")
        self._used = 0.0
        for trial in study.trials:
            self._count(trial)
        self._started, self._first_told = time.monotonic(), None
        self._bar.update(
            self._task,
            total=self._n_trials,
            completed=self._used,
            count=self._count_text(),
            note="",
        )

    def phase(self, text: str) -> None:
        """Show what is being done now."""
        self._bar.update(self._task, description=text)
        if not notes.is_terminal:
            notes.print(text, soft_wrap=True)

    def part(self, text: str, done: int, total: int) -> None:
        """Show how far a part of the current phase is."""
        if text not in self._parts:
            self._parts[text] = PassProgress(self._bar, text)
        self._parts[text](done, total)
        if done >= total:  # a later stage begins it again
            del self._parts[text]

    def told(self, trial: TrialRecord) -> None:
        """Count one finished trial."""
        self._count(trial)
        failed = f"{self._failed} failed" if self._failed else ""
        dropped = f"{self._dropped} dropped early" if self._dropped else ""
        note = " · ".join(filter(None, (self._best_text(), failed, dropped)))
        self._bar.update(
            self._task, completed=self._used, count=self._count_text(), note=f"· {note}"
        )
        self._print_line(note)

    def _count_text(self) -> str:
        if self._used == self._done:
            return f"{self._done}/{self._n_trials} trials"
        return f"{self._done} trials, {self._used:.4g}/{self._n_trials} evaluations"

    def _count(self, trial: TrialRecord) -> None:
        is_done = trial.state != "running"
        self._done += is_done
        self._used += trial.evaluations * is_done
        self._failed += trial.state == "failed"
        self._dropped += trial.state == "pruned"
        if trial.values and trial.is_feasible:
            self._best = max(self._best, mean_value(trial.values, self._objectives))

    def _best_text(self) -> str:
        """The best mean so far, where the objectives have one."""
        if not has_mean(self._objectives) or math.isinf(self._best):
            return ""
        return f"best mean {self._objectives[0].sign * self._best:.3f}"

    def _print_line(self, note: str) -> None:
        now = time.monotonic()
        is_last = is_used_up(self._used, self._n_trials)
        if notes.is_terminal or (now - self._last_line < _INTERVAL_S and not is_last):
            return
        self._last_line = now
        parts = (self._count_text(), _duration(now - self._started), self._left_text(now), note)
        notes.print(" · ".join(filter(None, parts)), soft_wrap=True)

    def _left_text(self, now: float) -> str:
        """Say how long the rest takes, by the pace since the first trial, which had to wait."""
        if self._first_told is None:
            self._first_told = (now, self._used)
        at, used_then = self._first_told
        if self._used == used_then:
            return ""
        pace = (now - at) / (self._used - used_then)
        return f"left {_duration(pace * max(0.0, self._n_trials - self._used))}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
