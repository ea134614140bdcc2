"""The progress of long work: a bar on a terminal, a line per interval otherwise."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from evomerge.console import notes
from evomerge.origins import EXPERT, is_baseline, kind_and_name
from evomerge.runs.events import Events
from evomerge.study.evaluations import is_used_up
from evomerge.study.records import Objective, StudyRecord, TrialRecord

__all__ = ["PassProgress", "SearchProgress", "duration_text", "progress_bar"]

_INTERVAL_S = 10.0  # between lines where there is no terminal
_WINDOW = 32  # results that tell the pace


def progress_bar() -> Progress:
    """Make a bar: what is done, how much of it, how long it takes; hidden without a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[count]} ·"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}"),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )


class _Pace:
    """How long the rest takes, by the pace of the last results: the first ones had to wait."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_WINDOW)  # when how many were done

    def left(self, done: float, total: float, now: float) -> str:
        """Note how much is done, and say how long the rest takes; empty while that is unknown."""
        self._seen.append((now, done))
        at, done_then = self._seen[0]
        if done <= done_then:
            return ""
        return f"left {duration_text((now - at) / (done - done_then) * max(0.0, total - done))}"


class PassProgress:
    """Says how far one pass over tensors or models is; a callback of (done, total).

    Args:
        bar: Where its line is shown, until it is complete.
        text: What the pass does.
    """

    def __init__(self, bar: Progress, text: str) -> None:
        self._bar, self._text = bar, text
        self._task = bar.add_task(text, total=None, count="", note="", left="")
        self._started = self._last_line = time.monotonic()
        self._pace = _Pace()

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is done."""
        share, now = f"{done / total:.0%}", time.monotonic()
        left = self._pace.left(done, total, now)
        self._bar.update(
            self._task,
            completed=done,
            total=total,
            visible=done < total,
            count=share,
            left=f"· {left}" if left else "",
        )
        if not notes.is_terminal and now - self._last_line >= _INTERVAL_S:
            self._last_line, seconds = now, now - self._started
            parts = (f"{self._text}: {share}", duration_text(seconds), left)
            notes.print(" · ".join(filter(None, parts)))


class SearchProgress:
    """Says what is happening, how far it is, how long it will take, and what is best so far."""

    def __init__(self) -> None:
        self._n_trials = 0
        self._done, self._failed, self._dropped = 0, 0, 0
        self._used = 0.0  # of the budget, by what is done
        self._best, self._busy = _Best(), ""
        self._pace = _Pace()
        self._started, self._last_line = time.monotonic(), 0.0
        self._bar = progress_bar()
        self._task: TaskID = self._bar.add_task("", total=None, count="", note="", left="")
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

    @property
    def events(self) -> Events:
        """What shows itself here."""
        return Events(
            phase=self.phase,
            part=self.part,
            told=self.told,
            warned=self.warned,
            noted=self.noted,
            began=self.began,
            busy=self.busy,
        )

    def began(self, study: StudyRecord) -> None:
        """Follow a study from where earlier drivers left it."""
        self._n_trials = study.n_trials
        self._done, self._failed, self._dropped, self._used = 0, 0, 0, 0.0
        self._best, self._pace = _Best(study.objectives), _Pace()
        for trial in study.trials:
            self._count(trial)
        self._started = time.monotonic()
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

    def warned(self, text: str) -> None:
        """Show what the person should look into, above the bar."""
        notes.print(f"warning: {text}", style="yellow", soft_wrap=True, markup=False)

    def noted(self, text: str) -> None:
        """Show what was decided in the person's place, above the bar."""
        notes.print(text, soft_wrap=True, markup=False, highlight=False)

    def busy(self, share: float) -> None:
        """Keep which share of the workers' time went into trials, for what is shown next."""
        self._busy = f"workers {share:.0%} busy"

    def told(self, trial: TrialRecord) -> None:
        """Count one finished trial."""
        self._count(trial)
        failed = f"{self._failed} failed" if self._failed else ""
        dropped = f"{self._dropped} dropped early" if self._dropped else ""
        note = " · ".join(filter(None, (self._best.text, failed, dropped, self._busy)))
        now = time.monotonic()
        left = self._pace.left(self._used, self._n_trials, now)
        self._bar.update(
            self._task,
            completed=self._used,
            count=self._count_text(),
            note=f"· {note}" if note else "",
            left=f"· {left}" if left else "",
        )
        self._print_line(now, left, note)

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
        self._best.add(trial)

    def _print_line(self, now: float, left: str, note: str) -> None:
        is_last = is_used_up(self._used, self._n_trials)
        if notes.is_terminal or (now - self._last_line < _INTERVAL_S and not is_last):
            return
        self._last_line = now
        parts = (self._count_text(), duration_text(now - self._started), left, note)
        notes.print(" · ".join(filter(None, parts)), soft_wrap=True)


class _Best:
    """What is best so far: of merges and of experts, or how much the front covers.

    Args:
        objectives: Of the study.
    """

    def __init__(self, objectives: Sequence[Objective] = ()) -> None:
        self._objectives = tuple(objectives)
        self._kept: tuple[TrialRecord, ...] = ()  # all that decides

    def add(self, trial: TrialRecord) -> None:
        """Take a finished trial into account."""
        from evomerge.analysis.front import non_dominated  # not before there is a first line

        if not trial.values or not trial.is_feasible:
            return
        trials = (*self._kept, trial)
        on_front = non_dominated(trials, self._objectives)
        self._kept = tuple(t for t in trials if t in on_front or is_baseline(t.origin))
        if len(self._objectives) == 1:  # the best merge counts also where an expert is better
            merges = [t for t in trials if not is_baseline(t.origin)]
            best = sorted(merges, key=lambda t: -self._objectives[0].sign * t.values[0])[:1]
            self._kept = (*(t for t in trials if is_baseline(t.origin)), *best)

    @property
    def text(self) -> str:
        """In a few words; empty while there is nothing to tell."""
        if not self._kept or not self._objectives:
            return ""
        if len(self._objectives) > 1:
            from evomerge.analysis.front import hypervolume

            study = StudyRecord("", self._objectives, self._kept, (), 0)
            return f"hypervolume {hypervolume(study):.3f}"
        experts = [t for t in self._kept if kind_and_name(t.origin)[0] == EXPERT]
        merges = [t for t in self._kept if not is_baseline(t.origin)]
        noun = StudyRecord("", self._objectives, self._kept, (), 0).noun
        sides = ((f"best {noun}", merges), ("best expert", experts))
        return " · ".join(f"{name} {self._value(side):.3f}" for name, side in sides if side)

    def _value(self, trials: Sequence[TrialRecord]) -> float:
        sign = self._objectives[0].sign
        return sign * max(sign * t.values[0] for t in trials)


def duration_text(seconds: float) -> str:
    """Write a duration in its largest unit of which there are at least two."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
