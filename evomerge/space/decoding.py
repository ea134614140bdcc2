"""From genes to rules: the values of every place, mixed for every cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evomerge.methods.declared import ParameterValue, Scalar
from evomerge.recipe.recipe import Rule, Selector
from evomerge.space.depth import Cell, Place
from evomerge.space.genes import Genes, Use
from evomerge.space.protocol import Params
from evomerge.space.simplex import shares_of
from evomerge.space.spec import Named, ParameterSpec

__all__ = ["decode_rules"]

Owner = str | None  # an expert, or nobody in particular


def decode_rules(params: Params, spec: ParameterSpec, genes: Genes) -> tuple[Rule, ...]:
    """Decode params to rules that select every tensor.

    Args:
        params: Active genes at least.
        spec: The space.
        genes: Its genes.
    """
    rules = list(_joined(_rule(cell, params, spec, genes) for cell in genes.cells))
    if all(_same_merge(rule, rules[0]) for rule in rules):
        return (replace(rules[0], where=Selector()),)
    return tuple(rules)


def _rule(cell: Cell, params: Params, spec: ParameterSpec, genes: Genes) -> Rule:
    method = genes.method_at(cell.place, params)
    settings: dict[str, ParameterValue] = {
        key: value for key, value in spec.all_fixed.items() if genes.has(method, key)
    }
    for parameter in genes.varying(method):
        settings[parameter] = _value(parameter, cell, params, spec, genes)
    parameters, modifiers = _split_modifiers(settings, spec.modifiers)
    return Rule(method, parameters, _selector(cell, spec), modifiers)


def _selector(cell: Cell, spec: ParameterSpec) -> Selector:
    layers = None if spec.depth == "global" else cell.layers
    group = spec.modules[cell.module]
    if isinstance(group, Named):
        return Selector(layers, names=group.names)
    return Selector(layers, kinds=None if len(spec.kinds) == 1 else tuple(group))


def _value(
    parameter: str, cell: Cell, params: Params, spec: ParameterSpec, genes: Genes
) -> ParameterValue:
    shares = cell.shares if genes.varies_with_depth(parameter) else ((cell.place, 1.0),)
    at_places = [_values(parameter, place, params, spec, genes) for place, _ in shares]
    log = spec.all_genes[parameter].log
    mixed = {
        owner: _mix([values[owner] for values in at_places], [share for _, share in shares], log)
        for owner in at_places[0]
    }
    if None in mixed:
        return mixed[None]
    return {str(owner): value for owner, value in mixed.items()}


def _values(
    parameter: str, place: Place, params: Params, spec: ParameterSpec, genes: Genes
) -> dict[Owner, Scalar]:
    """Read a parameter at one place, by owner."""
    owners = genes.owners(parameter)
    if None in owners:
        return {None: params[genes.name(Use(parameter, place))]}
    active = genes.experts_at(place, params)
    idle = 0.0 if parameter == spec.limited else genes.declared(parameter).default
    own = {e: params.get(genes.name(Use(parameter, place, e)), idle) for e in active}
    if spec.all_genes[parameter].sum_to_one:
        own = _shares([float(value) for value in own.values()], active, genes.bounds(parameter)[0])
    return {owner: own.get(str(owner), idle) for owner in owners}


def _shares(breaks: Sequence[float], experts: Sequence[str], least: float) -> dict[str, Scalar]:
    shares = shares_of(breaks[:-1], len(experts))
    free = 1.0 - least * len(experts)
    return {e: least + free * share for e, share in zip(experts, shares, strict=True)}


def _mix(values: Sequence[Scalar], shares: Sequence[float], log: bool) -> Scalar:
    if len(values) == 1:
        return values[0]
    numbers = [math.log(float(v)) if log else float(v) for v in values]
    mixed = sum(share * number for share, number in zip(shares, numbers, strict=True))
    mixed = math.exp(mixed) if log else mixed
    return min(max(mixed, min(values)), max(values))  # rounding must not leave the range


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
