"""From genes to rules: the values of every place, mixed for every cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evomerge.methods.declared import ParameterValue, Scalar
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Rule, Selector
from evomerge.recipe.rules import copy_rule
from evomerge.space.depth import Cell, Place
from evomerge.space.genes import Genes, Use
from evomerge.space.protocol import Params
from evomerge.space.simplex import shares_of
from evomerge.space.sloped import clipped, exp, log, number
from evomerge.space.spec import MixturePart, Named, ParameterSpec

__all__ = ["decode_rules"]

Owner = str | None  # an expert, or nobody in particular


def decode_rules(params: Params, spec: ParameterSpec, genes: Genes) -> tuple[Rule, ...]:
    """Decode params to rules that select every tensor.

    Args:
        params: Active genes at least.
        spec: The space.
        genes: Its genes.
    """
    decoder = _Decoder(params, spec, genes)
    rules = list(_joined(map(decoder.rule, genes.cells)))
    if all(_same_merge(rule, rules[0]) for rule in rules):
        return (replace(rules[0], where=Selector()),)
    return tuple(rules)


class _Decoder:
    """Decodes one set of params, cell by cell."""

    def __init__(self, params: Params, spec: ParameterSpec, genes: Genes) -> None:
        self._params, self._spec, self._genes = params, spec, genes
        self._read: dict[tuple[str, Place], dict[Owner, Scalar]] = {}

    def rule(self, cell: Cell) -> Rule:
        """Write the rule of one cell."""
        spec, genes = self._spec, self._genes
        if cell.module in spec.frozen:
            return replace(copy_rule(BASE, genes.experts), where=_selector(cell, spec))
        method = genes.method_at(cell.place, self._params)
        settings: dict[str, ParameterValue] = {
            key: value for key, value in spec.all_fixed.items() if genes.has(method, key)
        }
        for parameter in genes.varying(method):
            settings[parameter] = self._mixed(parameter, cell)
        parameters, modifiers = _split_modifiers(settings, spec.modifiers)
        return Rule(method, parameters, _selector(cell, spec), modifiers)

    def _mixed(self, parameter: str, cell: Cell) -> ParameterValue:
        """Mix the values of a cell's places."""
        varies = self._genes.varies_with_depth(parameter)
        shares = cell.shares if varies else ((cell.place, 1.0),)
        at_places = [self._at(parameter, place) for place, _ in shares]
        is_log = self._spec.all_genes[parameter].log
        mixed = {
            owner: _mix([own[owner] for own in at_places], [share for _, share in shares], is_log)
            for owner in at_places[0]
        }
        if None in mixed:
            return mixed[None]
        return {str(owner): value for owner, value in mixed.items()}

    def _at(self, parameter: str, place: Place) -> dict[Owner, Scalar]:
        key = (parameter, place)
        if key not in self._read:  # a control point serves many cells
            self._read[key] = dict(self._owned(parameter, place))
        return self._read[key]

    def _owned(self, parameter: str, place: Place) -> Iterator[tuple[Owner, Scalar]]:
        """Read a parameter at one place, by owner."""
        genes, params = self._genes, self._params
        owners = genes.owners(parameter)
        if None in owners:
            yield None, params[genes.name(Use(parameter, place))]
            return
        active = genes.experts_at(place, params)
        limited = parameter == self._spec.limited
        idle = 0.0 if limited else genes.declared(parameter).default
        own = {e: params.get(genes.name(Use(parameter, place, e)), idle) for e in active}
        if self._spec.all_genes[parameter].sum_to_one:
            least = genes.bounds(parameter)[0]
            own = _shares([*map(number, own.values())], active, least)
        yield from ((owner, own.get(str(owner), idle)) for owner in owners)


def _selector(cell: Cell, spec: ParameterSpec) -> Selector:
    layers = None if spec.depth == "global" else cell.layers
    group = spec.groups[cell.module]
    if isinstance(group, Named):
        return Selector(layers, group.kinds, group.names)
    assert not isinstance(group, MixturePart), "parts are named once the models are known"
    return Selector(layers, kinds=None if len(spec.kinds) == 1 else tuple(group))


def _shares(breaks: Sequence[float], experts: Sequence[str], least: float) -> dict[str, Scalar]:
    shares = shares_of(breaks[:-1], len(experts))
    free = 1.0 - least * len(experts)
    return {e: least + free * share for e, share in zip(experts, shares, strict=True)}


def _mix(values: Sequence[Scalar], shares: Sequence[float], is_log: bool) -> Scalar:
    if len(values) == 1:
        return values[0]
    numbers = [*map(number, values)]
    mixed = sum(
        share * (log(value) if is_log else value)
        for share, value in zip(shares, numbers, strict=True)
    )
    return clipped(exp(mixed) if is_log else mixed, min(numbers), max(numbers))


def _joined(rules: Iterator[Rule]) -> Iterator[Rule]:
    """Join neighbouring rules that differ in their layers only."""
    last = next(rules)
    for rule in rules:
        joined = _join(last, rule)
        if joined is None:
            yield last
        last = joined or rule
    yield last


def _join(one: Rule, other: Rule) -> Rule | None:
    layers, more = one.where.layers, other.where.layers
    same_modules = replace(one.where, layers=None) == replace(other.where, layers=None)
    if not layers or not more or layers[1] != more[0] or not same_modules:
        return None
    if not _same_merge(one, other):
        return None
    return replace(one, where=replace(one.where, layers=(layers[0], more[1])))


def _same_merge(one: Rule, other: Rule) -> bool:
    return replace(one, where=Selector()) == replace(other, where=Selector())


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
