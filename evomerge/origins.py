"""Where the model of a trial comes from: a baseline by its kind and name, or the search."""

from __future__ import annotations

__all__ = [
    "BASE",
    "EXPERT",
    "SEARCH",
    "UNIFORM",
    "expert",
    "is_baseline",
    "is_handed_on",
    "is_reference",
    "is_single_model",
    "kind_and_name",
    "model_label",
    "recipe",
    "study",
    "task_arithmetic",
    "winner",
]

BASE = "base"
EXPERT = "expert"  # the kind; its origins have names
UNIFORM = "uniform"
SEARCH = "search"  # of what is no baseline
_WINNER = "winner"


def expert(name: str) -> str:
    """Write the origin of an expert as it is."""
    return f"{EXPERT}:{name}"


def winner(name: str) -> str:
    """Write the origin of an expert that is a merge of an earlier stage."""
    return f"{_WINNER}:{name}"


def task_arithmetic(coefficient: float) -> str:
    """Write the origin of the sum of all task vectors times a coefficient."""
    return f"task_arithmetic:{coefficient:g}"


def recipe(name: str) -> str:
    """Write the origin of a recipe that a search starts from."""
    return f"recipe:{name}"


def study(name: str, trial: int) -> str:
    """Write the origin of another study's trial that a search starts from."""
    return f"study:{name}#{trial}"


def kind_and_name(origin: str) -> tuple[str, str]:
    """Take an origin apart; the name is empty where its kind has one model only."""
    kind, _, name = origin.partition(":")
    return kind, name


def is_single_model(origin: str) -> bool:
    """Say whether an origin is the base or one expert as they are, rather than a merge."""
    return origin == BASE or kind_and_name(origin)[0] == EXPERT


def is_handed_on(origin: str) -> bool:
    """Say whether an origin is a merge that an earlier stage handed on as it is."""
    return kind_and_name(origin)[0] == _WINNER


def is_baseline(origin: str) -> bool:
    """Say whether an origin is what every merge is held against: a single model or the average."""
    return is_single_model(origin) or origin == UNIFORM


def is_reference(origin: str) -> bool:
    """Say whether a constraint may refer to an origin: a baseline, an expert by its name."""
    return is_baseline(origin) and origin not in (EXPERT, expert(""))


def model_label(origin: str, number: int, noun: str = "merge") -> str:
    """Name a model in words: ``base``, ``expert math``, ``uniform average``, ``merge 57``.

    Others that the search started from are named, too: ``recipe mine (57)``.

    Args:
        origin: Of its trial.
        number: Of its trial.
        noun: What the search makes; see ``StudyRecord.noun``.
    """
    kind, name = kind_and_name(origin)
    if is_baseline(origin):
        return {BASE: "base", UNIFORM: "uniform average"}.get(kind, f"expert {name}")
    return f"{kind.replace('_', ' ')} {name} ({number})" if name else f"{noun} {number}"
