"""A path as a mergekit ``passthrough`` file: slices of models, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import RecipeError
from evomerge.methods.base import Method
from evomerge.methods.linear import Linear
from evomerge.methods.task_arithmetic import TaskArithmetic
from evomerge.models.architecture import TensorRole
from evomerge.models.branches import branches_of
from evomerge.recipe.mergekit.filters import setting_of
from evomerge.recipe.path import BASE, MERGED, cumulative_scales
from evomerge.recipe.recipe import Recipe

__all__ = ["Copied", "copied_slices"]

_ELSEWHERE = "export the recipe itself, or the model"


@dataclass(frozen=True)
class Copied:
    """A run of layers of one source, all scaled alike.

    Attributes:
        source: ``base`` or an expert's name.
        layers: Its layers.
        scale: mergekit's setting: a number, or entries with filters.
    """

    source: str
    layers: range
    scale: Any


def copied_slices(
    recipe: Recipe, roles: Mapping[str, TensorRole], model_type: object
) -> list[Copied]:
    """Cut a path into slices; scales become factors of the tensors that write the stream.

    Args:
        recipe: One with a path.
        roles: By tensor name.
        model_type: Family of the models.

    Raises:
        RecipeError: A layer or the ends are merged of several models, or folding the scales is
            more than multiplication.
    """
    pairs = zip(recipe.rules, recipe.bound_methods, strict=True)
    methods = [None if rule.modifiers else bound for rule, bound in pairs]
    rules = {name: methods[recipe.rule_for(name, role)] for name, role in roles.items()}
    branches = branches_of(model_type)
    found: list[tuple[Copied, dict[str, float]]] = []
    for hop, product in zip(recipe.path, cumulative_scales(recipe.path), strict=True):
        names = [name for name, r in roles.items() if r.in_layer and r.layer == hop.layer]
        source, factors = hop.source, dict.fromkeys(names, 1.0)
        if source == MERGED:
            source, factors = _single({name: rules[name] for name in names}, recipe)
        for name in names if product != 1 else ():
            if branches is None or branches.fold(name, product)[1]:
                raise RecipeError(
                    f"mergekit cannot write the scales of this path into {model_type} layers; "
                    "set every scale to 1, or export the model"
                )
            factors[name] *= branches.fold(name, product)[0]
        found.append((Copied(source, range(hop.layer, hop.layer + 1), None), factors))
    _add_ends(found, rules, roles, recipe)
    return _joined(found)


def _add_ends(
    found: list[tuple[Copied, dict[str, float]]],
    rules: Mapping[str, Method | None],
    roles: Mapping[str, TensorRole],
    recipe: Recipe,
) -> None:
    """Add what is outside the layers to the first and the last one, where mergekit finds it."""
    for position, what, is_first in ((0, "embeddings", True), (-1, "final norm and head", False)):
        names = [
            name
            for name, role in roles.items()
            if not role.in_layer and (role.kind == "embedding") == is_first
        ]
        if not names:
            continue
        source, factors = _single({name: rules[name] for name in names}, recipe)
        copied, of_layer = found[position]
        if source != copied.source:
            raise RecipeError(
                f"mergekit takes the {what} from the model of the {'first' if is_first else 'last'}"
                f" layer, got a path with {what} of {source} and that layer of {copied.source}; "
                f"{_ELSEWHERE}"
            )
        of_layer |= factors


def _single(rules: Mapping[str, Method | None], recipe: Recipe) -> tuple[str, dict[str, float]]:
    """Find the one model that tensors are copied from, and their factors."""
    experts = tuple(recipe.experts)
    copies = {name: _copy(rule, experts) for name, rule in rules.items()}
    sources = {copy[0] for copy in copies.values() if copy is not None and copy[1]}
    if None in copies.values() or len(sources) != 1:
        raise RecipeError(
            "mergekit's passthrough copies every layer from one model, got a path with merged "
            f"layers; {_ELSEWHERE}"
        )
    return sources.pop(), {name: copy[1] for name, copy in copies.items() if copy is not None}


def _copy(rule: Method | None, experts: tuple[str, ...]) -> tuple[str, float] | None:
    """Read a rule as a multiple of one model; ``None`` if it is more than that."""
    match rule:
        case Linear(coefficient=coefficients, normalize=normalize):
            factors = {e: c for e, c in zip(experts, coefficients, strict=True) if c}
            if len(factors) > 1:
                return None
            (source, factor), *_ = [*factors.items(), (experts[0], 0.0)]
            return source, 1.0 if normalize and factor else factor
        case TaskArithmetic(coefficient=coefficients, lambda_=1.0, normalize=False):
            factors = {e: c for e, c in zip(experts, coefficients, strict=True) if c}
            if list(factors.values()) in ([], [1.0]):
                return next(iter(factors), BASE), 1.0
    return None


def _joined(found: Sequence[tuple[Copied, dict[str, float]]]) -> list[Copied]:
    """Join successive layers of one model whose tensors have the same factors."""
    slices: list[list[tuple[Copied, dict[str, float]]]] = []
    for copied, factors in found:
        last, last_factors = slices[-1][-1] if slices else (None, {})
        follows = last is not None and (last.source, last.layers.stop) == (
            copied.source,
            copied.layers.start,
        )
        if follows and setting_of(last_factors) == setting_of(factors):
            slices[-1].append((copied, factors))
        else:
            slices.append([(copied, factors)])
    return [
        Copied(
            run[0][0].source,
            range(run[0][0].layers.start, run[-1][0].layers.stop),
            setting_of({name: value for _, factors in run for name, value in factors.items()}),
        )
        for run in slices
    ]
