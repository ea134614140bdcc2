"""The finals: the best merges and the baselines scored again on items the search never saw.

The best of many noisy scores is biased upward; scores on ``validation`` pick the winner, scores on
``test`` are what is reported. Baselines compete: what is chosen is never worse there than what was
there before the search. Constraints are held to the scores of each split itself, baselines' scores
included. Tasks that are only reported are scored last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.store import ItemStore
from evomerge.evaluation.suite import REPORT_ONLY
from evomerge.execution.batch import run_all
from evomerge.execution.protocol import Executor, Failed, Job, Outcome, Scored
from evomerge.origins import SEARCH
from evomerge.recipe.files import stored_recipe
from evomerge.study.constraints import Constraint, violations
from evomerge.study.outcomes import checked_outcome
from evomerge.study.records import (
    FinalRecord,
    FinalSplit,
    Objective,
    ReportOnly,
    TrialRecord,
    merits,
)

_log = logging.getLogger(__name__)

__all__ = ["Finals", "run_finals"]


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
    constraints: Sequence[Constraint] = (),
    reserves: Sequence[TrialRecord] = (),
    report_only: Sequence[Objective] = (),
    on_scored: Callable[[int, int], None] = lambda done, total: None,
) -> Finals:
    """Score finalists and baselines on ``validation``; on ``test`` the best merge and baselines.

    Args:
        finalists: Merges that may win, e.g. the front.
        baselines: Trials that may win as well, and that are reported whoever does.
        objectives: In the study's order.
        executor: Idle.
        items: Where item scores go.
        constraints: What the winner must keep.
        reserves: Merges that may win if every finalist violates a constraint on ``validation``.
        report_only: Measures of the tasks that are only reported, for the models of ``test``.
        on_scored: Told after each model how many are done, and of how many.

    Returns:
        The winner has the best ``merits`` on ``validation`` of the baselines and finalists (or
        else reserves) that violate no constraint there, else of all that violate them least. Of
        equals a merge wins. A trial that cannot be scored is left out with a warning.
    """
    entrants = {t.number: t for t in (*finalists, *reserves, *baselines)}
    scoring = _Scoring(executor, items, on_scored, _n_scorings(entrants, baselines, report_only))
    wanted = _Wanted(objectives, constraints)
    validation = scoring.of(list(entrants.values()), "validation", wanted)
    before = {t.number for t in baselines}
    rivals = [r for r in validation if r.number in before]
    scored = {r.number: r for r in validation if r.number not in before}
    ranks = [[scored[t.number] for t in r if t.number in scored] for r in (finalists, reserves)]
    merges = _may_win(ranks)
    winner = _best(_may_win([[*merges, *rivals]]), objectives)
    if winner is None:
        return Finals()
    shown = before | {_best(merges, objectives) if winner in before else winner}
    reported = [t for t in entrants.values() if t.number in shown]
    test = scoring.of(reported, "test", wanted)
    unseen = _Wanted(report_only, is_report_only=True)
    forgotten = scoring.of(reported, REPORT_ONLY, unseen) if report_only else []
    return Finals(
        _marked([*validation, *test], winner),
        ReportOnly(tuple(report_only), _marked(forgotten, winner)),
    )


def _n_scorings(
    entrants: Mapping[int, TrialRecord],
    baselines: Sequence[TrialRecord],
    report_only: Sequence[Objective],
) -> int:
    """Count models to score; fewer if some cannot be scored."""
    n_reported = min(len(entrants), len(baselines) + 1)
    return len(entrants) + n_reported * (2 if report_only else 1)


def _marked(records: Sequence[FinalRecord], winner: int) -> tuple[FinalRecord, ...]:
    return tuple(replace(record, chosen=record.number == winner) for record in records)


def _may_win(ranks: Sequence[Sequence[FinalRecord]]) -> list[FinalRecord]:
    """List the feasible records of the first rank that has any, else the least infeasible."""
    for rank in ranks:
        if feasible := [r for r in rank if r.is_feasible]:
            return feasible
    everyone = [r for rank in ranks for r in rank]
    least = min((r.violation for r in everyone), default=0.0)
    return [r for r in everyone if r.violation == least]


def _best(records: Sequence[FinalRecord], objectives: Sequence[Objective]) -> int | None:
    """Number of the best record, the first of equals."""
    merit = merits([r.values for r in records], objectives)
    return records[merit.index(max(merit))].number if merit else None


@dataclass(frozen=True)
class _Wanted:
    """What is read off the scores of a model."""

    objectives: Sequence[Objective]
    constraints: Sequence[Constraint] = ()
    is_report_only: bool = False

    @property
    def decides(self) -> list[Objective | Constraint]:
        """What a model is compared by, so that it must be a number."""
        return [] if self.is_report_only else [*self.objectives, *self.constraints]

    def of(self, wanted: Sequence[Objective | Constraint], scored: Scored) -> list[MetricValue]:
        return [scored.scores.metrics[w.task][w.metric] for w in wanted]

    def records(
        self, trials: Sequence[TrialRecord], split: FinalSplit, scored: Mapping[int, Scored]
    ) -> list[FinalRecord]:
        measured = {n: [m.value for m in self.of(self.constraints, s)] for n, s in scored.items()}
        known = [(t.origin, measured[t.number]) for t in trials if t.origin != SEARCH]
        return [
            FinalRecord(
                number=trial.number,
                origin=trial.origin,
                split=split,
                values=tuple(m.value for m in metrics),
                stderr=tuple(m.stderr for m in metrics),
                chosen=False,
                violations=violations(self.constraints, measured[trial.number], known),
            )
            for trial in trials
            for metrics in [self.of(self.objectives, scored[trial.number])]
        ]


class _Scoring:
    """Scores models on whatever worker is free, and counts them."""

    def __init__(
        self,
        executor: Executor,
        items: ItemStore,
        on_scored: Callable[[int, int], None],
        total: int,
    ) -> None:
        self._executor, self._items = executor, items
        self._on_scored, self._done, self._total = on_scored, 0, total

    def of(
        self, trials: Sequence[TrialRecord], split: FinalSplit, wanted: _Wanted
    ) -> list[FinalRecord]:
        """Score trials on a split; those that fail are left out with a warning."""
        outcomes = self._outcomes(trials, split)
        scored = {}
        for trial in trials:
            match checked_outcome(outcomes[trial.number], wanted.decides):
                case Scored() as found:
                    self._items.write(trial.number, split, found.scores.items)
                    self._items.note(trial.number, split, found.scores.verdicts)
                    scored[trial.number] = found
                case Failed(error=error):
                    _log.warning(
                        "trial %d could not be scored on %s: %s", trial.number, split, error
                    )
        return wanted.records([t for t in trials if t.number in scored], split, scored)

    def _outcomes(self, trials: Sequence[TrialRecord], split: str) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = {}
        jobs = [Job(t.number, stored_recipe(t.recipe, t.number), split) for t in trials]
        for outcome in run_all(self._executor, jobs):
            outcomes[outcome.job.trial] = outcome
            self._done += 1
            self._on_scored(self._done, self._total)
        return outcomes
