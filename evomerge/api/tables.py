"""A study as data frames: one row per trial, or per model that was scored on held-out items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from evomerge.analysis.front import front
from evomerge.analysis.picking import pick
from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.store import ItemStore
from evomerge.study.folder import StudyFolder
from evomerge.study.records import FinalRecord, Objective, StudyRecord, TrialRecord

__all__ = ["finals_table", "front_table", "items", "metrics_table", "trials_table"]


def items(folder: str | PathLike[str]) -> pd.DataFrame:
    """Read the score of every item that a study has scored.

    Args:
        folder: A study folder; it may be running.

    Returns:
        One row per trial, split, task, item and metric: ``trial, split, task, item, metric, score,
        smooth, tokens, seconds``; see ``evaluation.scores.ItemScore``.

    Raises:
        StudyError: No study here.
    """
    return ItemStore(StudyFolder(Path(folder)).require().items).read()


def front_table(study: StudyRecord) -> pd.DataFrame:
    """Tabulate the front, by trial number.

    Returns:
        ``origin``, a column per objective and one with its standard error (``NAME_stderr``), and
        ``pick``: ``knee`` or ``chosen`` where ``export --pick`` means that trial.
    """
    members = front(study)
    picks = _picks(study) if members else {}
    rows = [
        {
            "origin": trial.origin,
            **_values(study.objectives, trial),
            "pick": ", ".join(name for name, number in picks.items() if number == trial.number),
        }
        for trial in members
    ]
    columns = ["origin", *_value_columns(study.objectives), "pick"]
    numbers = pd.Index([trial.number for trial in members], name="trial", dtype="int64")
    return pd.DataFrame(rows, index=numbers, columns=columns)


def trials_table(study: StudyRecord) -> pd.DataFrame:
    """Tabulate every trial, finished or not.

    Returns:
        ``number``, ``state``, ``origin``, a column per objective and one with its standard error
        (``NAME_stderr``), ``feasible``, ``evaluations``, ``started``, ``finished``, ``error``, then
        ``params_NAME`` and ``seconds_PHASE``. What a trial does not have is NaN or ``None``.
    """
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "state": trial.state,
                "origin": trial.origin,
                **_values(study.objectives, trial),
                "feasible": trial.is_feasible,
                "evaluations": trial.evaluations,
                "started": trial.started,
                "finished": trial.finished,
                "error": trial.error,
                **{f"params_{name}": value for name, value in trial.params.items()},
                **{f"seconds_{phase}": value for phase, value in trial.seconds.items()},
            }
            for trial in study.trials
        ]
    )


def finals_table(study: StudyRecord) -> pd.DataFrame:
    """Tabulate the held-out scores: ``split``, ``trial``, ``origin``, ``chosen``, and values."""
    columns = ["split", "trial", "origin", "chosen", *_value_columns(study.objectives)]
    rows = [
        {
            "split": final.split,
            "trial": final.number,
            "origin": final.origin,
            "chosen": final.chosen,
            **_values(study.objectives, final),
        }
        for final in study.finals
    ]
    return pd.DataFrame(rows, columns=columns)


def metrics_table(metrics: Mapping[str, Mapping[str, MetricValue]]) -> pd.DataFrame:
    """Tabulate scores: ``task``, ``metric``, ``value``, ``stderr`` and ``n``, the items behind."""
    rows = [
        (task, name, found.value, found.stderr, found.n)
        for task, by_name in metrics.items()
        for name, found in by_name.items()
    ]
    return pd.DataFrame(rows, columns=["task", "metric", "value", "stderr", "n"])


def _picks(study: StudyRecord) -> dict[str, int]:
    names = ["knee", *(["chosen"] if any(final.chosen for final in study.finals) else [])]
    return {name: pick(study, name).number for name in names}


def _values(
    objectives: Sequence[Objective], record: TrialRecord | FinalRecord
) -> dict[str, float | None]:
    missing = (float("nan"),) * len(objectives)
    values, stderr = record.values or missing, record.stderr or missing
    names = _value_columns(objectives)
    pairs = (number for pair in zip(values, stderr, strict=True) for number in pair)
    return dict(zip(names, pairs, strict=True))


def _value_columns(objectives: Sequence[Objective]) -> list[str]:
    return [name for o in objectives for name in (o.name, f"{o.name}_stderr")]
