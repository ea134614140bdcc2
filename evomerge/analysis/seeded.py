"""What the seeds of a study say about the choice of method: fixed mixes, scored, not guessed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from evomerge.analysis.front import complete
from evomerge.analysis.intervals import Estimate, mean
from evomerge.origins import BASE, UNIFORM, kind_and_name, task_arithmetic
from evomerge.study.records import Objective, StudyRecord, TrialRecord, has_mean, merits, shares

__all__ = ["seeds_advice", "space_warning"]

_SUM = kind_and_name(task_arithmetic(1))[0]
_AVERAGING = {"linear", "slerp", "multislerp", "nuslerp", "karcher", "model_stock"}


def seeds_advice(study: StudyRecord) -> str | None:
    """Say how the average and the sums of task vectors scored, and what follows for the method.

    Args:
        study: As it stands.

    Returns:
        A sentence or two; ``None`` where no such seed was scored.
    """
    seeds = _seeds(study)
    if not seeds:
        return None
    ranked = _ranked([*seeds, *_base(study)], study.objectives)
    scores = ", ".join(f"{_name(t)} {_scores(t, study.objectives)}" for t in ranked)
    return f"Measured on the search items, best first: {scores}. {_conclusion(ranked)}"


def space_warning(study: StudyRecord, methods: Collection[str]) -> str | None:
    """Say that a space cannot reach the seed that scored best.

    Args:
        study: As it stands.
        methods: Of the space; none if they are not known.
    """
    seeds = _ranked(_seeds(study), study.objectives)
    can_average_only = methods and set(methods) <= _AVERAGING
    if not seeds or not _adds_up(seeds[0]) or not can_average_only:
        return None
    named = ", ".join(sorted(methods))
    return (
        f"The search space averages ({named}) and cannot reach {_name(seeds[0])}, the best seed: "
        "take one of task_arithmetic, ties or dare_ties."
    )


def _seeds(study: StudyRecord) -> list[TrialRecord]:
    return [t for t in complete(study) if kind_and_name(t.origin)[0] in (UNIFORM, _SUM)]


def _base(study: StudyRecord) -> list[TrialRecord]:
    return [t for t in complete(study) if t.origin == BASE]


def _ranked(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    rated = zip(merits([t.values for t in trials], objectives), trials, strict=True)
    return [trial for _, trial in sorted(rated, key=lambda pair: -pair[0])]


def _adds_up(seed: TrialRecord) -> bool:
    """Whether a seed is a sum that goes beyond the average."""
    kind, coefficient = kind_and_name(seed.origin)
    experts = seed.recipe.get("experts")
    n_experts = len(experts) if isinstance(experts, dict) else 1
    return kind == _SUM and float(coefficient) * n_experts > 1


def _conclusion(ranked: Sequence[TrialRecord]) -> str:
    best, sums = ranked[0], [t for t in ranked if _adds_up(t)]
    if best.origin == BASE:
        return "No fixed mix beats the base: let layers and experts have coefficients of their own."
    if best in sums:
        return "Adding up beats averaging: search task_arithmetic, ties or dare_ties."
    if sums:
        return "Sums go too far: keep coefficients near the average's."
    return "Sums were not tried: add seeds: {task_arithmetic: [0.3, 1.0]} to see whether they help."


def _name(trial: TrialRecord) -> str:
    kind, coefficient = kind_and_name(trial.origin)
    if kind == UNIFORM:
        return "the uniform average"
    return f"task arithmetic {coefficient}" if kind == _SUM else "the base"


def _scores(trial: TrialRecord, objectives: Sequence[Objective]) -> str:
    if has_mean(objectives):
        return str(mean(trial.values, trial.stderr, shares(objectives)))
    estimates = map(Estimate, trial.values, trial.stderr)
    return " / ".join(f"{o.name} {e}" for o, e in zip(objectives, estimates, strict=True))
