"""Rules that several rooms write: one model as it is, and the base plus a mix of task vectors.

They state all their parameters, so that a digest does not depend on a method's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Rule

__all__ = ["copy_rule", "sum_rule"]


def copy_rule(model: str, experts: Iterable[str]) -> Rule:
    """Write one model, value for value, as a rule over all of them.

    Args:
        model: ``base`` or an expert's name.
        experts: All names, in recipe order.
    """
    mix = {name: float(name == model) for name in experts}
    if model == BASE:  # a linear mix of no expert is not the base
        return sum_rule(mix)
    return Rule("linear", {"coefficient": mix, "normalize": True})


def sum_rule(mix: Mapping[str, float], scale: float = 1.0) -> Rule:
    """Write the base plus a mix of task vectors.

    Args:
        mix: Coefficient by expert.
        scale: Of the whole mix.
    """
    return Rule("task_arithmetic", {"coefficient": mix, "lambda": scale, "normalize": False})
