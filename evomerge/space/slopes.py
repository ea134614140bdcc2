"""From slopes along a recipe to slopes along the genes that decode to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from evomerge.methods.declared import Declared, ParameterValue, PerExpert
from evomerge.methods.modifiers import MODIFIERS
from evomerge.methods.registry import method
from evomerge.models.architecture import TensorRole
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.recipe.slopes import RecipeSlopes
from evomerge.space.protocol import Params, SearchSpace
from evomerge.space.sloped import Sloped

__all__ = ["gene_slopes", "sloped_genes"]


def gene_slopes(
    space: SearchSpace, params: Params, slopes: RecipeSlopes, roles: Mapping[str, TensorRole]
) -> dict[str, float]:
    """Find an objective's slopes along the genes of a trial.

    Whatever lies between genes and the numbers of a recipe is passed through: depth groups and
    control points, modules, shared genes, shares of one whole, logarithms, guarded scales. At a
    corner, such as a share of everything, that is the slope on one side of it or none.

    Args:
        space: Whose genes they are.
        params: Genes of the trial, active ones at least.
        slopes: Along the recipe that they decode to.
        roles: Of the tensors that the recipe merges, by name.

    Returns:
        Slopes by gene, per unit of the gene's own value (not of its logarithm). Genes that have
        none are left out: choices, whole numbers, inactive ones, and what moves masks.
    """
    recipe = space.recipe({**params, **_marked(space, params)})
    found: dict[str, float] = defaultdict(float)
    for number, slope in _numbers(recipe, slopes, roles):
        if isinstance(number, Sloped):
            for gene, share in number.slopes.items():
                found[gene] += slope * share
    return {gene: found[gene] for gene in space.distributions if gene in found}


def sloped_genes(space: SearchSpace) -> frozenset[str]:
    """Find the genes along which objectives may have slopes.

    Those are real numbers that reach a parameter with slopes (``Parameter.slope``) or the scale of
    a hop, in one of these recipes: all choices and whole numbers at their neutral values, all at
    their first value, all at their second, and so on, so that every method has its turn.
    """
    found: set[str] = set()
    for params in _samples(space):
        recipe = space.recipe({**params, **_marked(space, params)})
        for number in _sloped_numbers(recipe):
            found |= number.slopes.keys() if isinstance(number, Sloped) else set()
    return frozenset(found)


def _samples(space: SearchSpace) -> Iterator[dict[str, float | int | str]]:
    """Yield params with real numbers inside their ranges: corners may hide a slope."""
    inner = {
        name: (gene.low * gene.high) ** 0.5 if gene.log else (gene.low + gene.high) / 2
        for name, gene in space.distributions.items()
        if isinstance(gene, FloatDistribution)
    }
    values: dict[str, Sequence[Any]] = {
        name: gene.choices if isinstance(gene, CategoricalDistribution) else _ends(gene)
        for name, gene in space.distributions.items()
        if isinstance(gene, (CategoricalDistribution, IntDistribution))
    }
    yield {**space.defaults, **inner}
    for i in range(max(map(len, values.values()), default=0)):
        yield {**inner, **{name: each[i % len(each)] for name, each in values.items()}}


def _ends(gene: IntDistribution) -> tuple[int, ...]:
    return (gene.low, gene.high)


def _marked(space: SearchSpace, params: Params) -> dict[str, Sloped]:
    """Let every real number know the gene that it comes from."""
    return {
        gene: Sloped(float(value), {gene: 1.0})
        for gene, value in params.items()
        if isinstance(space.distributions.get(gene), FloatDistribution)
    }


def _sloped_numbers(recipe: Recipe) -> Iterator[object]:
    """List the numbers of a recipe along which objectives may have slopes."""
    for rule in recipe.rules:
        yield from _with_slopes(method(rule.method), rule.parameters)
        for name, values in rule.modifiers.items():
            yield from _with_slopes(MODIFIERS[name], values)
    yield from (hop.scale for hop in recipe.path)


def _with_slopes(
    declared: type[Declared], values: Mapping[str, ParameterValue]
) -> Iterator[object]:
    for name, parameter in declared.parameters().items():
        value = values.get(name) if parameter.slope else None
        yield from value.values() if isinstance(value, Mapping) else (value,)


def _numbers(
    recipe: Recipe, slopes: RecipeSlopes, roles: Mapping[str, TensorRole]
) -> Iterator[tuple[object, float]]:
    """Pair the numbers of a recipe with the slopes along them."""
    for position, own in _by_rule(recipe, slopes, roles).items():
        for parameter, each in own.items():
            value = _setting(recipe.rules[position], parameter)
            if isinstance(value, Mapping):
                yield from zip((value[name] for name in recipe.experts), each, strict=True)
            else:
                yield value, sum(each)
    for hop, slope in zip(recipe.path, slopes.scales, strict=False):
        yield hop.scale, slope


def _by_rule(
    recipe: Recipe, slopes: RecipeSlopes, roles: Mapping[str, TensorRole]
) -> dict[int, dict[str, PerExpert]]:
    """Add up the slopes of the tensors that one rule merges."""
    found: dict[int, dict[str, PerExpert]] = defaultdict(dict)
    for name, own in slopes.tensors.items():
        total = found[recipe.rule_for(name, roles[name])]
        for parameter, slope in own.items():
            each = slope if isinstance(slope, tuple) else (slope,)
            before = total.get(parameter, (0.0,) * len(each))
            total[parameter] = tuple(a + b for a, b in zip(before, each, strict=True))
    return found


def _setting(rule: Rule, parameter: str) -> ParameterValue | None:
    """Read what a rule says of a parameter; ``None`` if it leaves the default."""
    modifier, _, own = parameter.rpartition(":")
    values = rule.modifiers[modifier] if modifier else rule.parameters
    return values.get(own)
