"""The finals: front members and baselines scored again on items the search never saw.

The best of many noisy scores is biased upward; scores on ``validation`` pick the winner, scores on
``test`` are what is reported. Tasks that are only reported are scored last.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evomerge.evaluation.store import ItemStore
from evomerge.evaluation.suite import REPORT_ONLY
from evomerge.execution.protocol import Executor, Failed, Job, Outcome, Scored
from evomerge.recipe.files import recipe_from_data
from evomerge.study.folder import write_atomically
from evomerge.study.records import FinalRecord, Objective, ReportOnly, TrialRecord, merits

_log = logging.getLogger(__name__)

__all__ = ["Finals", "read_finals", "run_finals", "write_finals"]


@dataclass(frozen=True)
class Finals:
    """What the finals found out.

    Attributes:
        records: Of both splits; empty if no finalist could be scored.
        report_only: Of the tasks that the search never saw.
    """

    records: tuple[FinalRecord, ...] = ()
    report_only: ReportOnly = field(default_factory=ReportOnly)


def run_finals(
    finalists: Sequence[TrialRecord],
    baselines: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    executor: Executor,
    items: ItemStore,
    report_only: Sequence[Objective] = (),
) -> Finals:
    """Score finalists and baselines on ``validation``, then the winner and baselines on ``test``.

    Args:
        finalists: Trials that may win, e.g. the front.
        baselines: Trials reported beside the winner.
        objectives: In the study's order.
        executor: Idle.
        items: Where item scores go.
        report_only: Measures of the tasks that are only reported, for the models of ``test``.

    Returns:
        The winner has the best ``merits`` on ``validation``. A trial that cannot be scored is left
        out with a warning.
    """
    entrants = {t.number: t for t in (*finalists, *baselines)}
    validation = _score(list(entrants.values()), "validation", objectives, executor, items)
    numbers = {t.number for t in finalists}
    may_win = [r for r in validation if r.number in numbers]
    if not may_win:
        return Finals()
    merit = merits([r.values for r in may_win], objectives)
    winner = may_win[merit.index(max(merit))].number
    reported = [t for t in entrants.values() if t.number == winner or t in baselines]
    test = _score(reported, "test", objectives, executor, items)
    unseen = _score(reported, REPORT_ONLY, report_only, executor, items) if report_only else []
    return Finals(
        _marked([*validation, *test], winner),
        ReportOnly(tuple(report_only), _marked(unseen, winner)),
    )


def read_finals(path: Path) -> Finals:
    """Read what ``write_finals`` wrote; empty if the finals were not run."""
    if not path.is_file():
        return Finals()
    content = json.loads(path.read_text())
    unseen = content.get(REPORT_ONLY, {"measures": [], "records": []})
    measures = tuple(Objective(**row) for row in unseen["measures"])
    return Finals(_read(content["records"]), ReportOnly(measures, _read(unseen["records"])))


def write_finals(path: Path, finals: Finals) -> None:
    """Write the finals as JSON."""
    content = {"schema_version": 1, **asdict(finals)}
    write_atomically(path, json.dumps(content, indent=1))


def _marked(records: Sequence[FinalRecord], winner: int) -> tuple[FinalRecord, ...]:
    return tuple(replace(record, chosen=record.number == winner) for record in records)


def _read(rows: Sequence[Mapping[str, Any]]) -> tuple[FinalRecord, ...]:
    tuples = ("values", "stderr")
    return tuple(FinalRecord(**{**row, **{k: tuple(row[k]) for k in tuples}}) for row in rows)


def _score(
    trials: Sequence[TrialRecord],
    split: str,
    objectives: Sequence[Objective],
    executor: Executor,
    items: ItemStore,
) -> list[FinalRecord]:
    waiting = list(trials)
    outcomes: dict[int, Outcome] = {}
    in_flight = 0
    while waiting or in_flight:
        while waiting and in_flight < executor.n_workers:
            trial = waiting.pop(0)
            recipe = recipe_from_data(trial.recipe, f"trial {trial.number}")
            executor.submit(Job(trial.number, recipe, split))
            in_flight += 1
        outcome = executor.next_outcome()
        in_flight -= 1
        outcomes[outcome.job.trial] = outcome
    records = []
    for trial in trials:
        match outcomes[trial.number]:
            case Scored() as scored:
                items.write(trial.number, split, scored.scores.items)
                records.append(_record(trial, split, objectives, scored))
            case Failed(error=error):
                _log.warning("trial %d could not be scored on %s: %s", trial.number, split, error)
    return records


def _record(
    trial: TrialRecord, split: str, objectives: Sequence[Objective], scored: Scored
) -> FinalRecord:
    metrics = [scored.scores.metrics[o.task][o.metric] for o in objectives]
    return FinalRecord(
        number=trial.number,
        origin=trial.origin,
        split=split,  # type: ignore[arg-type]
        values=tuple(m.value for m in metrics),
        stderr=tuple(m.stderr for m in metrics),
        chosen=False,
    )
