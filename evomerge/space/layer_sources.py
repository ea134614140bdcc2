"""Layers by where they come from, as rules and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from evomerge.errors import RecipeError
from evomerge.methods.linear import Linear
from evomerge.methods.task_arithmetic import TaskArithmetic
from evomerge.recipe.recipe import Recipe, Rule, Selector
from evomerge.space.protocol import ModelSet

__all__ = ["BASE", "LayerShares", "layer_rows", "layer_rules", "same_rows"]

BASE = "base"
LayerShares = Mapping[str, float]  # shares of sources in one layer; they sum to one

_SAME = 1e-9


def layer_rules(rows: Sequence[LayerShares], models: ModelSet) -> tuple[Rule, ...]:
    """Write rules that mix every layer as its row says; equal neighbours share a rule.

    Args:
        rows: One per layer.
        models: What is mixed.
    """
    rules, first = [], 0
    for row, equal in groupby(rows):
        end = first + len(list(equal))
        where = Selector() if end - first == len(rows) else Selector(layers=(first, end))
        # The base counts as what the experts leave; without it, an expert alone stays exact.
        method = "task_arithmetic" if row.get(BASE) else "linear"
        coefficient = {name: row.get(name, 0.0) for name in models.experts}
        rules.append(Rule(method, {"coefficient": coefficient}, where))
        first = end
    return tuple(rules)


def layer_rows(recipe: Recipe, models: ModelSet) -> list[LayerShares] | None:
    """Read where every layer comes from; ``None`` if a layer is no plain mix of the models."""
    if recipe.path:
        return None
    used: list[set[int]] = [set() for _ in range(models.n_layers)]
    try:
        for name, role in models.roles.items():
            used[role.layer].add(recipe.rule_for(name, role))
    except RecipeError:  # a tensor without a rule
        return None
    rows = []
    for rules in used:
        mixes = [_row(recipe, position) for position in sorted(rules)]
        if not mixes or mixes[0] is None or any(mix != mixes[0] for mix in mixes):
            return None
        rows.append(mixes[0])
    return rows


def same_rows(one: Sequence[LayerShares], other: Sequence[LayerShares]) -> bool:
    """Tell whether layers are mixed alike, up to rounding errors."""
    return all(
        abs(ours.get(name, 0.0) - theirs.get(name, 0.0)) <= _SAME
        for ours, theirs in zip(one, other, strict=True)
        for name in {*ours, *theirs}
    )


def _row(recipe: Recipe, position: int) -> LayerShares | None:
    if recipe.rules[position].modifiers:
        return None
    match recipe.bound_methods[position]:
        case Linear(coefficient=own, normalize=normalize):
            total = sum(own) if normalize else 1.0
        case TaskArithmetic(coefficient=own, normalize=False, lambda_=1.0):
            total = 1.0
        case _:
            return None
    if abs(total) <= _SAME:
        return None
    shares = {name: c / total for name, c in zip(recipe.experts, own, strict=True)}
    rest = 1.0 - sum(shares.values())
    from_base = isinstance(recipe.bound_methods[position], TaskArithmetic)
    return {**shares, BASE: rest} if from_base or abs(rest) <= _SAME else None
