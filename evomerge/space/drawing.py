"""Single genes, whatever space they belong to: drawing them, checking them, writing their range."""

from __future__ import annotations

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

__all__ = ["Value", "draw", "in_range", "range_text"]

Value = float | int | str


def draw(trial: Trial, name: str, distribution: BaseDistribution) -> Value:
    """Draw one gene of a trial."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
        case IntDistribution(low=first, high=last):
            return trial.suggest_int(name, first, last)
        case CategoricalDistribution(choices=choices):
            chosen = trial.suggest_categorical(name, choices)
            assert chosen is not None, "no choice here is None"
            return chosen
    raise AssertionError("genes are numbers or choices")


def in_range(distribution: BaseDistribution, value: Value) -> bool:
    """Tell whether a gene can have a value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # none of the choices
        return False


def range_text(distribution: BaseDistribution) -> str:
    """Write the values of a gene for people, e.g. ``0 to 1`` or ``linear | ties``."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log):
            return f"{low:g} to {high:g}{', log' if log else ''}"
        case IntDistribution(low=first, high=last):
            return f"{first} to {last}"
        case CategoricalDistribution(choices=choices):
            return " | ".join(map(str, choices))
    raise AssertionError("genes are numbers or choices")
