"""Optuna's distributions, as spaces use them."""

from __future__ import annotations

from collections.abc import Mapping

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from evomerge.optuna_internals import contains
from evomerge.space.protocol import Params

__all__ = ["Value", "in_range", "range_text", "suggest"]

Value = float | int | str


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Value:
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
    raise AssertionError("Optuna has no other kind")


def in_range(params: Params, distributions: Mapping[str, BaseDistribution]) -> bool:
    """Tell whether every gene has a value that it may take."""
    return all(contains(distributions[name], value) for name, value in params.items())


def range_text(distribution: BaseDistribution) -> str:
    """Write the values of a gene for people, e.g. ``0 to 1`` or ``linear | ties``."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log):
            return f"{low:g} to {high:g}{', log' if log else ''}"
        case IntDistribution(low=first, high=last):
            return f"{first} to {last}, whole"
        case CategoricalDistribution(choices=choices):
            return " | ".join(map(str, choices))
    raise AssertionError("Optuna has no other kind")
