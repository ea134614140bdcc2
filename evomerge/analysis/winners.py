"""Which merges of a study go on: to the finals, or as experts into the next stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Literal

from evomerge.analysis.front import contenders, front
from evomerge.analysis.picking import knee
from evomerge.errors import StudyError
from evomerge.origins import is_baseline, is_handed_on, is_single_model
from evomerge.study.records import Objective, StudyRecord, TrialRecord, merits

__all__ = ["Choice", "best_beside", "best_merges", "finalists", "stage_winners"]

Choice = Literal["mean", "knee", "front"]


def best_merges(study: StudyRecord, n: int, by: Choice = "mean") -> list[TrialRecord]:
    """Choose merges of the front; where no merge is on the front, the best beside it.

    Args:
        study: So far.
        n: How many at most.
        by: ``mean``: the best by what decides the finals; ``knee``: the knee, then the knee of
            the others, and so on; ``front``: the best on each objective in turn.

    Returns:
        Best first, fewer than ``n`` if there are no more.
    """
    merges = [t for t in contenders(study) if not is_single_model(t.origin)]
    entrants = [t for t in front(study) if not is_single_model(t.origin)] or merges
    order = {"mean": _by_mean, "knee": _by_knee, "front": _by_objective}[by]
    return order(entrants, study.objectives, n)


def finalists(study: StudyRecord, n: int) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Choose the merges that go to the finals, where the baselines wait for them.

    Args:
        study: With its search done.
        n: How many at most.

    Returns:
        Those of the front of the merges, best first, and as many others, best first, as make ``n``
        with them. One objective has no front to speak of: the best of all are the finalists then.
        Where climbs drew genes together more or less (``TrialRecord.pull``), the best of each
        strength come first: search items favour the weakest, held-out items may not.
    """
    merges = replace(study, trials=tuple(t for t in study.trials if not is_baseline(t.origin)))
    seated = _best_by_pull(merges)
    chosen = [*seated, *_without(best_merges(merges, n), seated)][:n]
    others = best_beside(merges, chosen)[: n - len(chosen)]
    return ([*chosen, *others], []) if len(study.objectives) == 1 else (chosen, others)


def stage_winners(study: StudyRecord, n: int, by: Choice) -> list[TrialRecord]:
    """Choose the merges that go on to the next stage: those of the front, then the best beside it.

    Winners of earlier stages are among the next one's experts already; they are not chosen again.

    Args:
        study: Finished.
        n: How many.
        by: As for ``best_merges``.

    Raises:
        StudyError: The study has fewer merges.
    """
    study = replace(study, trials=tuple(t for t in study.trials if not is_handed_on(t.origin)))
    chosen = best_merges(study, n, by)
    found = [*chosen, *best_beside(study, chosen)]
    if len(found) < n:
        raise StudyError(
            f"expected {n} complete merges in {study.name} to go on with, got {len(found)}; raise "
            "its budget with --set and resume"
        )
    return found[:n]


def best_beside(study: StudyRecord, chosen: Sequence[TrialRecord]) -> list[TrialRecord]:
    """List the other merges that may win, best first by what decides the finals."""
    merges = [t for t in contenders(study) if not is_single_model(t.origin)]
    return _by_mean(_without(merges, chosen), study.objectives)


def _without(trials: Sequence[TrialRecord], left_out: Sequence[TrialRecord]) -> list[TrialRecord]:
    numbers = {trial.number for trial in left_out}
    return [trial for trial in trials if trial.number not in numbers]


def _best_by_pull(merges: StudyRecord) -> list[TrialRecord]:
    """List the best trial of each pull, best first; none if there is one pull or less."""
    best: dict[float, TrialRecord] = {}
    for trial in _by_mean(contenders(merges), merges.objectives):
        if trial.pull is not None:
            best.setdefault(trial.pull, trial)
    return list(best.values()) if len(best) > 1 else []


def _by_mean(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], n: int | None = None
) -> list[TrialRecord]:
    rated = zip(merits([t.values for t in trials], objectives), trials, strict=True)
    return [trial for _, trial in sorted(rated, key=lambda pair: -pair[0])[:n]]


def _by_knee(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], n: int
) -> list[TrialRecord]:
    left, chosen = list(trials), list[TrialRecord]()
    while left and len(chosen) < n:
        chosen.append(knee(left, objectives))
        left.remove(chosen[-1])
    return chosen


def _by_objective(
    trials: Sequence[TrialRecord], objectives: Sequence[Objective], n: int
) -> list[TrialRecord]:
    left, chosen = _by_mean(trials, objectives), list[TrialRecord]()
    for i, objective in cycle(enumerate(objectives)):
        if not left or len(chosen) == n:
            return chosen
        chosen.append(max(left, key=lambda t: objective.sign * t.values[i]))
        left.remove(chosen[-1])
    return chosen
