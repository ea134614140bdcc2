"""The parameter space: which coefficients, densities and methods, per depth group and module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from evomerge.errors import SpaceError
from evomerge.methods.base import Method
from evomerge.methods.declared import ParameterValue
from evomerge.models.architecture import TensorRole
from evomerge.recipe.recipe import Recipe, Rule, Selector
from evomerge.space.checks import spec_faults
from evomerge.space.drawing import Value, draw, in_range, range_text
from evomerge.space.genes import Cell, Genes
from evomerge.space.protocol import GeneInfo, ModelSet, Params
from evomerge.space.spec import ParameterSpec

__all__ = ["ParameterSpace"]

_SAME = 1e-9  # two parameter values closer than this make the same model


class ParameterSpace:
    """Decodes genes to one rule per cell; implements ``SearchSpace``.

    Args:
        spec: What varies.
        models: What is mixed.

    Raises:
        SpaceError: Listing every fault of the spec, one line each.
    """

    def __init__(self, spec: ParameterSpec, models: ModelSet) -> None:
        if faults := spec_faults(spec, models):
            raise SpaceError("\n".join(faults))
        self._spec, self._models = spec, models
        self._genes = Genes(spec, models)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See ``SearchSpace``."""
        return self._genes.distributions

    @property
    def defaults(self) -> Params:
        """See ``SearchSpace``."""
        return self._genes.defaults

    @property
    def statistics(self) -> tuple[str, ...]:
        """See ``SearchSpace``."""
        found: set[str] = set()
        for params in self._extremes():
            found.update(self._recipe((self._rule(self._genes.cells[0], params),)).statistics)
        return tuple(sorted(found))

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``."""
        methods = [name for name in self.distributions if name.startswith("method")]
        params: dict[str, float | int | str] = {n: self._suggest(trial, n) for n in methods}
        return params | {n: self._suggest(trial, n) for n in self._genes.active(params)}

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        rules = tuple(self._rule(cell, params) for cell in self._genes.cells)
        if len({(r.method, repr(r.parameters), repr(r.modifiers)) for r in rules}) == 1:
            rules = (replace(rules[0], where=Selector()),)
        return self._recipe(rules)

    def _recipe(self, rules: tuple[Rule, ...]) -> Recipe:
        return Recipe(
            base=self._models.base,
            experts=self._models.experts,
            rules=rules,
            dtype=self._models.dtype,
            seed=self._models.seed,
        )

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``; compares method and parameter values cell by cell."""
        if recipe.path:
            return None
        if (recipe.base, dict(recipe.experts)) != (self._models.base, dict(self._models.experts)):
            return None
        params: dict[str, float | int | str] = {}
        for cell in self._genes.cells:
            rule = _rule_of_cell(recipe, self._roles(cell))
            if rule is None or rule.method not in self._spec.methods:
                return None
            params.update(self._read_genes(cell, rule))
        return params if self._in_range(params) and self._decodes_to(params, recipe) else None

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        return [
            GeneInfo(name, range_text(d), self.defaults[name], self._genes.meaning(name))
            for name, d in self.distributions.items()
        ]

    def _extremes(self) -> Iterator[Params]:
        """Combine all choices, alike in all cells; numbers are at their low ends.

        Where a number decides what is asked of a tensor, as in SCE, its low end asks for most.
        """
        choices: dict[str, tuple[Any, ...]] = {
            _parameter_of(name): d.choices
            for name, d in self.distributions.items()
            if isinstance(d, CategoricalDistribution)
        }
        for values in product(*choices.values()):
            chosen = dict(zip(choices, values, strict=True))
            yield {
                name: d.low if isinstance(d, FloatDistribution) else chosen[_parameter_of(name)]
                for name, d in self.distributions.items()
            }

    def _suggest(self, trial: Trial, name: str) -> Value:
        return draw(trial, name, self.distributions[name])

    def _rule(self, cell: Cell, params: Params) -> Rule:
        name = self._genes.method_of(cell, params)
        settings: dict[str, ParameterValue] = {
            key: value for key, value in self._spec.all_fixed.items() if self._genes.has(name, key)
        }
        for parameter in self._genes.varying(name):
            settings[parameter] = self._value(parameter, cell, params)
        parameters, modifiers = _split_modifiers(settings, self._spec.modifiers)
        where = Selector(
            layers=None if self._spec.depth == "global" else cell.layers,
            kinds=None if len(self._spec.modules) == 1 else tuple(self._spec.modules[cell.module]),
        )
        return Rule(method=name, parameters=parameters, modifiers=modifiers, where=where)

    def _value(self, parameter: str, cell: Cell, params: Params) -> ParameterValue:
        genes = self._genes
        values = {e: params[genes.of(parameter, cell, e)] for e in genes.owners(parameter)}
        if None in values:
            return values[None]
        return {str(expert): value for expert, value in values.items()}

    def _roles(self, cell: Cell) -> Iterator[TensorRole]:
        for layer in range(*cell.layers):
            for kind in self._spec.modules[cell.module]:
                yield TensorRole(layer, kind)

    def _read_genes(self, cell: Cell, rule: Rule) -> dict[str, float | int | str]:
        found: dict[str, float | int | str] = {}
        genes = self._genes
        if len(self._spec.methods) > 1:
            found[genes.of_method(cell)] = rule.method
        for parameter in genes.varying(rule.method):
            value = _setting(rule, parameter, genes.declared(parameter).default)
            for expert in genes.owners(parameter):
                one = value[expert or ""] if isinstance(value, Mapping) else value
                found[genes.of(parameter, cell, expert)] = self._snapped(parameter, one)
        return found

    def _snapped(self, parameter: str, value: float | int | str) -> float | int | str:
        """Move a number that is outside the range by a rounding error to its edge."""
        if isinstance(value, (bool, str)):
            return value
        low, high = self._genes.bounds(parameter)
        return min(max(value, low), high) if low - _SAME <= value <= high + _SAME else value

    def _in_range(self, params: Params) -> bool:
        return all(in_range(self.distributions[name], value) for name, value in params.items())

    def _decodes_to(self, params: Params, recipe: Recipe) -> bool:
        decoded = self.recipe(params)
        for cell in self._genes.cells:
            for role in self._roles(cell):
                ours, theirs = decoded.rule_for("", role), recipe.rule_for("", role)
                if not _close(decoded.bound_methods[ours], recipe.bound_methods[theirs]):
                    return False
                if decoded.rules[ours].modifiers != recipe.rules[theirs].modifiers:
                    return False
        return True


def _parameter_of(gene: str) -> str:
    return gene.split(".", maxsplit=1)[0]


def _rule_of_cell(recipe: Recipe, roles: Iterator[TensorRole]) -> Rule | None:
    """Find the one rule that merges all of a cell; ``None`` if there are several."""
    if any(rule.where.names for rule in recipe.rules):
        return None
    used = {recipe.rule_for("", role) for role in roles}
    return recipe.rules[used.pop()] if len(used) == 1 else None


def _split_modifiers(
    settings: Mapping[str, ParameterValue], order: Mapping[str, object]
) -> tuple[dict[str, ParameterValue], dict[str, dict[str, ParameterValue]]]:
    """Separate ``modifier:parameter`` settings from those of the method."""
    parameters = {key: value for key, value in settings.items() if ":" not in key}
    modifiers: dict[str, dict[str, ParameterValue]] = {name: {} for name in order}
    for key, value in settings.items():
        if ":" in key:
            modifier, _, parameter = key.partition(":")
            modifiers[modifier][parameter] = value
    return parameters, modifiers


def _setting(rule: Rule, parameter: str, default: ParameterValue) -> ParameterValue:
    if ":" not in parameter:
        return rule.parameters.get(parameter, default)
    modifier, _, own = parameter.partition(":")
    return rule.modifiers.get(modifier, {}).get(own, default)


def _close(one: Method, other: Method) -> bool:
    if type(one) is not type(other):
        return False
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(_close_values(a, b) for a, b in pairs)


def _close_values(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_close_values(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, (int, float)):
        return abs(a - b) <= _SAME
    return a == b
