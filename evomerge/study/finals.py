"""The finals: front members and baselines scored again on items the search never saw.

The best of many noisy scores is biased upward; scores on ``validation`` pick the winner, scores on
``test`` are what is reported. Constraints are held to the scores of each split itself, baselines'
scores included.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Executor, Failed, Job, Outcome, Scored
from evomerge.recipe.files import recipe_from_data
from evomerge.study.constraints import Constraint, finals_note, violations
from evomerge.study.folder import write_atomically
from evomerge.study.records import FinalRecord, Objective, TrialRecord, merits

_log = logging.getLogger(__name__)

__all__ = ["read_finals", "run_finals", "write_finals"]


def run_finals(
    finalists: Sequence[TrialRecord],
    baselines: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    executor: Executor,
    items: ItemStore,
    constraints: Sequence[Constraint] = (),
    reserves: Sequence[TrialRecord] = (),
) -> tuple[FinalRecord, ...]:
    """Score finalists and baselines on ``validation``, then the winner and baselines on ``test``.

    Args:
        finalists: Trials that may win, e.g. the front.
        baselines: Trials reported beside the winner.
        objectives: In the study's order.
        executor: Idle.
        items: Where item scores go.
        constraints: What the winner must keep.
        reserves: Trials that may win if every finalist violates a constraint on ``validation``.

    Returns:
        Records of both splits. The winner has the best ``merits`` on ``validation`` of the
        finalists that violate no constraint there, else of such reserves, else of those that
        violate them least. A trial that cannot be scored is left out with a warning; no records if
        no finalist could be scored.
    """
    entrants = {t.number: t for t in (*finalists, *reserves, *baselines)}
    wanted = _Wanted(objectives, constraints)
    validation = _score(list(entrants.values()), "validation", wanted, executor, items)
    may_win = _may_win(validation, finalists, reserves)
    if not may_win:
        return ()
    merit = merits([r.values for r in may_win], objectives)
    winner = may_win[merit.index(max(merit))].number
    reported = [t for t in entrants.values() if t.number == winner or t in baselines]
    test = _score(reported, "test", wanted, executor, items)
    return tuple(replace(r, chosen=r.number == winner) for r in (*validation, *test))


def _may_win(validation: Sequence[FinalRecord], *ranks: Sequence[TrialRecord]) -> list[FinalRecord]:
    """List the feasible records of the first rank that has any, else the least infeasible."""
    scored = {r.number: r for r in validation}
    records = [[scored[t.number] for t in rank if t.number in scored] for rank in ranks]
    for of_rank in records:
        if feasible := [r for r in of_rank if r.is_feasible]:
            return feasible
    everyone = [r for of_rank in records for r in of_rank]
    least = min((r.violation for r in everyone), default=0.0)
    return [r for r in everyone if r.violation == least]


def read_finals(path: Path) -> tuple[FinalRecord, ...]:
    """Read the records that ``write_finals`` wrote; none if the finals were not run."""
    if not path.is_file():
        return ()
    rows = json.loads(path.read_text())["records"]
    return tuple(FinalRecord(**_with_tuples(row)) for row in rows)


def _with_tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def write_finals(
    path: Path, records: Sequence[FinalRecord], constraints: Sequence[str] = ()
) -> None:
    """Write the records as JSON, with a note for people where constraints are violated.

    Args:
        path: The file.
        records: As ``run_finals`` returns them.
        constraints: Their names, in the order of the violations.
    """
    content = {
        "schema_version": 1,
        "note": finals_note(records, constraints),
        "records": [asdict(record) for record in records],
    }
    write_atomically(path, json.dumps(content, indent=1))


@dataclass(frozen=True)
class _Wanted:
    """What is read off the scores of a model."""

    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]

    def of(self, wanted: Sequence[Objective | Constraint], scored: Scored) -> list[MetricValue]:
        return [scored.scores.metrics[w.task][w.metric] for w in wanted]

    def records(
        self, trials: Sequence[TrialRecord], split: str, scored: Mapping[int, Scored]
    ) -> list[FinalRecord]:
        measured = {n: [m.value for m in self.of(self.constraints, s)] for n, s in scored.items()}
        known = [(t.origin, measured[t.number]) for t in trials if t.origin != "search"]
        return [
            FinalRecord(
                number=trial.number,
                origin=trial.origin,
                split=split,  # type: ignore[arg-type]
                values=tuple(m.value for m in metrics),
                stderr=tuple(m.stderr for m in metrics),
                chosen=False,
                violations=violations(self.constraints, measured[trial.number], known),
            )
            for trial in trials
            for metrics in [self.of(self.objectives, scored[trial.number])]
        ]


def _score(
    trials: Sequence[TrialRecord],
    split: str,
    wanted: _Wanted,
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
    scored = {}
    for trial in trials:
        match outcomes[trial.number]:
            case Scored() as found:
                items.write(trial.number, split, found.scores.items)
                scored[trial.number] = found
            case Failed(error=error):
                _log.warning("trial %d could not be scored on %s: %s", trial.number, split, error)
    return wanted.records([t for t in trials if t.number in scored], split, scored)
