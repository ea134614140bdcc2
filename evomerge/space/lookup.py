"""From a recipe back to genes, where a parameter space can express it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.errors import RecipeError
from evomerge.methods.base import Method
from evomerge.methods.declared import ParameterValue, Scalar
from evomerge.recipe.recipe import Recipe, Rule, Selector
from evomerge.space.depth import Cell, Place, peak, shares_matrix
from evomerge.space.genes import EXPERTS, METHOD, Genes, Use
from evomerge.space.protocol import ModelSet, Params
from evomerge.space.simplex import breaks_of
from evomerge.space.spec import ParameterSpec

__all__ = ["find_params", "makes_the_same"]

SAME = 1e-9  # two parameter values closer than this make the same model


def find_params(recipe: Recipe, spec: ParameterSpec, genes: Genes) -> Params | None:
    """Read genes off a recipe; they may decode to another one, which is left to be checked.

    Args:
        recipe: Over the models of the space.
        spec: The space.
        genes: Its genes.

    Returns:
        Params, or ``None`` if the recipe has other methods or divides the tensors otherwise.
    """
    searched = genes.searched
    rules = [_rule_of(cell, recipe) for cell in searched]
    by_cell = {id(cell): rule for cell, rule in zip(searched, rules, strict=True) if rule}
    if len(by_cell) < len(rules) or any(r.method not in spec.methods for r in by_cell.values()):
        return None
    found: dict[str, float | int | str] = {}
    for module in dict.fromkeys(cell.module for cell in searched):
        cells = [cell for cell in searched if cell.module == module]
        found |= _Module(cells, [by_cell[id(c)] for c in cells], spec, genes).read()
    return {name: found[name] for name in genes.distributions if name in found}


def makes_the_same(one: Recipe, other: Recipe, models: ModelSet) -> bool:
    """Tell whether two recipes merge every tensor by the same method with the same numbers."""
    pairs = {(one.rule_for(n, r), other.rule_for(n, r)) for n, r in models.roles.items()}
    return all(
        _close(one.bound_methods[ours], other.bound_methods[theirs])
        and one.rules[ours].modifiers == other.rules[theirs].modifiers
        for ours, theirs in pairs
    )


class _Module:
    """Reads the genes of one module group.

    Args:
        cells: Its cells.
        rules: The rule that merges each.
        spec: The space.
        genes: Its genes.
    """

    def __init__(
        self, cells: list[Cell], rules: list[Rule], spec: ParameterSpec, genes: Genes
    ) -> None:
        self._cells, self._rules, self._spec, self._genes = cells, rules, spec, genes
        self._places = [p for p in genes.places if p.module == cells[0].module]
        self._shares = shares_matrix(cells, self._places)

    def read(self) -> dict[str, float | int | str]:
        """Return the genes of every place."""
        found: dict[str, float | int | str] = {}
        for place in self._places:
            found |= self._read_place(place, self._rules[self._peak(place)].method)
        return found

    def _read_place(self, place: Place, method: str) -> dict[str, float | int | str]:
        found: dict[str, float | int | str] = {}
        genes, limited = self._genes, self._spec.limited
        if len(self._spec.methods) > 1:
            found[genes.name(Use(METHOD, place))] = method
        if limited is not None and genes.has(method, limited):
            own = self._at(limited, place)
            active = [str(owner) for owner, value in own.items() if abs(float(value)) > SAME]
            found[genes.name(Use(EXPERTS, place))] = "+".join(active)
        for parameter in genes.varying(method):
            experts = (None, *genes.experts_at(place, found))
            values = {o: v for o, v in self._at(parameter, place).items() if o in experts}
            found |= self._encode(parameter, place, values)
        return found

    def _encode(
        self, parameter: str, place: Place, values: Mapping[str | None, Scalar]
    ) -> Iterator[tuple[str, Scalar]]:
        owners = list(values)
        if self._spec.all_genes[parameter].sum_to_one:
            least = self._genes.bounds(parameter)[0]
            free = 1.0 - least * len(owners)
            breaks = breaks_of([(float(v) - least) / free for v in values.values()])
            values = dict(zip(owners, breaks, strict=False))
        for owner, value in values.items():
            yield self._genes.name(Use(parameter, place, owner)), self._snapped(parameter, value)

    def _at(self, parameter: str, place: Place) -> dict[str | None, Scalar]:
        """Find the values of one parameter at one place, by owner."""
        owners = self._genes.owners(parameter)
        return {owner: self._solved(parameter, owner, place) for owner in owners}

    def _solved(self, parameter: str, owner: str | None, place: Place) -> Scalar:
        default = self._genes.declared(parameter).default
        values = [_setting(rule, parameter, owner, default) for rule in self._rules]
        own = self._peak(place)
        is_mixed = len(self._cells[own].shares) > 1
        if not is_mixed or not self._genes.varies_with_depth(parameter):
            return values[own]
        column = self._places.index(place)
        return self._interpolated(parameter, np.array(values, dtype=float))[column]

    def _peak(self, place: Place) -> int:
        return self._cells.index(peak(self._cells, place))

    def _interpolated(self, parameter: str, values: FloatArray) -> list[float]:
        """Find the places' values that come closest to the cells' values."""
        log = self._spec.all_genes[parameter].log and bool((values > 0).all())
        solved = np.linalg.lstsq(self._shares, np.log(values) if log else values)[0]
        return [float(v) for v in (np.exp(solved) if log else solved)]

    def _snapped(self, parameter: str, value: Scalar) -> Scalar:
        """Move a number that is outside the range by a rounding error to its edge."""
        if isinstance(value, (bool, str)):
            return value
        is_share = self._spec.all_genes[parameter].sum_to_one
        low, high = (0.0, 1.0) if is_share else self._genes.bounds(parameter)
        return min(max(value, low), high) if low - SAME <= value <= high + SAME else value


def _rule_of(cell: Cell, recipe: Recipe) -> Rule | None:
    """Find the one rule that merges all of a cell; ``None`` if its tensors differ."""
    try:
        used = {recipe.rule_for(name, role) for name, role in cell.tensors.items()}
    except RecipeError:  # a tensor without a rule
        return None
    first, *others = (replace(recipe.rules[i], where=Selector()) for i in sorted(used))
    return first if all(other == first for other in others) else None


def _setting(rule: Rule, parameter: str, owner: str | None, default: Scalar) -> Scalar:
    settings: Mapping[str, ParameterValue] = rule.parameters
    modifier, _, own = parameter.rpartition(":")
    if modifier:
        settings = rule.modifiers.get(modifier, {})
    value = settings.get(own, default)
    return value[str(owner)] if isinstance(value, Mapping) else value


def _close(one: Method, other: Method) -> bool:
    if type(one) is not type(other):
        return False
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(_close_values(a, b) for a, b in pairs)


def _close_values(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_close_values(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, (int, float)):
        return abs(a - b) <= SAME
    return a == b
