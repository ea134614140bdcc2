"""A study as a piece of a notebook: how far it is, and its front."""

from __future__ import annotations

from collections import Counter
from html import escape

from evomerge.analysis.front import hypervolume
from evomerge.api.tables import front_table
from evomerge.study.records import StudyRecord

__all__ = ["study_html", "study_line"]

_MOST_ROWS = 20


def study_line(study: StudyRecord) -> str:
    """Say how far a study is, in one line."""
    counts = Counter(trial.state for trial in study.trials)
    states = ", ".join(f"{n} {state}" for state, n in counts.items()) or "no trials"
    return f"{study.name}: {states} of {study.n_trials}, hypervolume {hypervolume(study):.3f}"


def study_html(study: StudyRecord) -> str:
    """Show a study: one line, and the front as a table."""
    table = front_table(study)
    shown = table.head(_MOST_ROWS).to_html(float_format="{:.3f}".format, border=0)
    more = len(table) - _MOST_ROWS
    note = f"<p>and {more} more</p>" if more > 0 else ""
    return f"<p><b>{escape(study_line(study))}</b></p>{shown}{note}"
