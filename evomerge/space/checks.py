"""What can be wrong with a parameter space, found before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from evomerge.errors import Fault, KeyPath, collected, did_you_mean
from evomerge.methods.base import Method
from evomerge.methods.declared import Parameter, value_faults
from evomerge.methods.modifiers import MODIFIERS, modifier_faults
from evomerge.methods.registry import method
from evomerge.models.architecture import KINDS, LANGUAGE_KINDS
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import (
    Boundaries,
    ControlPoints,
    Gene,
    Groups,
    Importance,
    MethodChoice,
    ParameterSpec,
)
from evomerge.space.tensor_groups import with_groups

__all__ = ["spec_faults"]


def spec_faults(spec: ParameterSpec, models: ModelSet) -> list[Fault]:
    """List every fault of a space; empty if all is well.

    Of models without layers, which could not be opened, only the names count.
    """
    spec = with_groups(spec, models)
    methods, faults = _known_methods(spec)
    experts = tuple(models.experts)
    faults += _depth_faults(spec, models)
    faults += _module_faults(spec, models)
    faults += modifier_faults({name: {} for name in spec.modifiers}, experts)
    known = _known_parameters(spec, methods)
    for name, gene in spec.all_genes.items():
        path = _path(spec, "genes", name)
        if name in known:
            faults += [f.under(*path) for f in _gene_faults(gene, known[name], models)]
        elif methods and (name in spec.genes or not _of_unknown_modifier(name)):
            faults.append(_nowhere(path, name, spec, known))
    for name, value in spec.all_fixed.items():
        path = _path(spec, "fixed", name)
        if name in spec.genes:
            faults.append(Fault(path, "it is a gene already", "remove one of the two"))
        elif name in known:
            found = value_faults(known[name], value, experts)
            faults += [replace(fault, path=(*path, *fault.path[1:])) for fault in found]
        elif methods and (name in spec.fixed or not _of_unknown_modifier(name)):
            faults.append(_nowhere(path, name, spec, known))
    limited = [name for name, gene in spec.all_genes.items() if gene.max_active is not None]
    if len(limited) > 1:
        text = f"expected max_active on one gene, got it on {', '.join(limited)}"
        faults.append(Fault(("genes",), text))
    for kind in methods:
        faults += [fault.under("method") for fault in kind.faults({}, experts)]
    return faults


def _path(spec: ParameterSpec, section: Literal["genes", "fixed"], name: str) -> KeyPath:
    """Find where a parameter of a method, or ``modifier:parameter``, is written."""
    modifier, _, parameter = name.partition(":")
    is_plain = name in getattr(spec, section)
    return (section, name) if is_plain else ("modifiers", modifier, parameter)


def _nowhere(path: KeyPath, name: str, spec: ParameterSpec, known: Collection[str]) -> Fault:
    hint = did_you_mean(name, known) or f", only {', '.join(known)}"
    return Fault(path, f"no method here ({', '.join(spec.methods)}) has it{hint}")


def _known_methods(spec: ParameterSpec) -> tuple[list[type[Method]], list[Fault]]:
    methods: list[type[Method]] = []
    faults: list[Fault] = []
    for name in spec.methods:
        with collected(faults, "method"):
            methods.append(method(name))
    if not spec.methods:
        faults.append(Fault(("method", "choice"), "expected at least one method, got none"))
    if len(set(spec.methods)) < len(spec.methods):
        text = f"expected different ones, got {', '.join(spec.methods)}"
        faults.append(Fault(("method", "choice"), text))
    return methods, faults


def _known_parameters(spec: ParameterSpec, methods: list[type[Method]]) -> dict[str, Parameter]:
    known = {name: p for kind in methods for name, p in kind.parameters().items()}
    for modifier in spec.modifiers:
        if modifier in MODIFIERS:
            own = MODIFIERS[modifier].parameters()
            known |= {f"{modifier}:{name}": parameter for name, parameter in own.items()}
    return known


def _of_unknown_modifier(name: str) -> bool:
    """Tell a parameter whose modifier has been reported as unknown already."""
    return ":" in name and name.partition(":")[0] not in MODIFIERS


def _depth_faults(spec: ParameterSpec, models: ModelSet) -> Iterator[Fault]:
    if isinstance(spec.depth, ControlPoints):
        yield from _stepwise_faults(spec)
    last = models.n_layers
    if not last:
        return
    match spec.depth:
        case Groups(groups=n) | Importance(importance=n) if not 1 <= n <= last:
            key = "groups" if isinstance(spec.depth, Groups) else "importance"
            text = f"expected 1 to {last} (the models' layers), got {n}"
            yield Fault(("depth", key), text)
        case Importance() if not models.tensors:
            text = "needs the models' task vectors, which only an experiment has"
            yield Fault(("depth", "importance"), text)
        case ControlPoints(control_points=n) if not 2 <= n <= last:
            text = f"expected 2 to {last} (the models' layers), got {n}"
            hint = "depth: global gives all layers the same values"
            yield Fault(("depth", "control_points"), text, hint)
        case Boundaries(boundaries=starts):
            rising = all(one < other for one, other in pairwise(starts))
            if not starts or starts[0] != 0 or not rising or starts[-1] >= last:
                text = (
                    "expected the first layer of each group, rising from 0 to less than "
                    f"{last} (the models' layers), got {list(starts)}"
                )
                yield Fault(("depth", "boundaries"), text)


def _stepwise_faults(spec: ParameterSpec) -> Iterator[Fault]:
    """Find choices that would have to be interpolated."""
    text = "cannot be interpolated over depth"
    hint = "leave depth out of 'per', or use depth: {groups: N}"
    if isinstance(spec.method, MethodChoice) and "depth" in spec.method.per:
        yield Fault(("method", "per"), f"a choice of methods {text}", hint)
    for name, gene in spec.all_genes.items():
        path = _path(spec, "genes", name)
        if gene.choice is not None and "depth" in (gene.per or ()):
            yield Fault((*path, "per"), f"a choice {text}", hint)
        if gene.max_active is not None and (gene.per is None or "depth" in gene.per):
            yield Fault((*path, "max_active"), f"a choice of experts {text}", hint)


def _module_faults(spec: ParameterSpec, models: ModelSet) -> Iterator[Fault]:
    listed = [kind for kinds in spec.kinds.values() for kind in kinds]
    for kind in KINDS:
        least = 1 if kind in LANGUAGE_KINDS else 0
        if not least <= listed.count(kind) <= 1:
            text = f"expected {kind!r} in exactly one group, found it {listed.count(kind)} times"
            yield Fault(("modules",), text, f"the kinds are {', '.join(KINDS)}")
    for group in spec.groups:
        if "." in group:
            yield Fault(("modules", group), "group names must not contain a dot")
    for group, module in spec.named_modules.items():
        path, names = ("modules", group, "names"), module.names
        try:
            found = any(map(re.compile(names).search, models.tensors))
        except re.error as err:
            yield Fault(path, f"expected a regular expression, got {names!r} ({err})")
            continue
        if models.tensors and not found:
            example = next(iter(models.tensors))
            yield Fault(path, f"{names!r} is in no tensor name, such as {example}")


def _gene_faults(gene: Gene, declared: Parameter, models: ModelSet) -> Iterator[Fault]:
    if gene.per is not None and "expert" in gene.per and not declared.per_expert:
        yield Fault(("per",), "all experts share this parameter", "leave 'expert' out")
    yield from _sharing_faults(gene, declared, models)
    is_number = not declared.choices and not isinstance(declared.default, bool)
    if is_number:
        yield from _range_faults(gene, declared)
        return
    if gene.range is not None:
        yield Fault(("range",), "this parameter is no number", "use choice: [...]")
    if gene.choice is not None and len(set(gene.choice)) < max(1, len(gene.choice)):
        text = f"expected different values, at least one, got {list(gene.choice)}"
        yield Fault(("choice",), text)
    for value in gene.choice or ():
        if reason := declared.fault(value):
            yield Fault(("choice",), reason)


def _sharing_faults(gene: Gene, declared: Parameter, models: ModelSet) -> Iterator[Fault]:
    """Check what ties the experts' values together."""
    n = len(models.experts)
    wanted = ["sum_to_one"] if gene.sum_to_one else []
    wanted += ["max_active"] if gene.max_active is not None else []
    per = gene.per or ("expert",)
    for key in wanted if not declared.per_expert or "expert" not in per else ():
        yield Fault((key,), "expected a parameter with a value per expert", "leave it out")
    if gene.max_active is not None and not 1 <= gene.max_active <= n:
        yield Fault(("max_active",), f"expected 1 to {n} (the experts), got {gene.max_active}")
    low, high = gene.range or (declared.search or (0.0, 1.0) if not gene.sum_to_one else (0.0, 1.0))
    if gene.max_active is not None and low <= 0 <= high:
        text = (
            "expected a range without 0, such as [0.05, 1], since an expert that takes part at 0 "
            f"is one that does not, got [{low:g}, {high:g}]"
        )
        yield Fault(("range",), text)
    if isinstance(gene.initial, Mapping):
        for name in sorted(gene.initial.keys() - models.experts.keys()):
            text = f"{name!r} is not one of the experts {', '.join(models.experts)}"
            yield Fault(("initial", name), text)
    if gene.sum_to_one:
        yield from _share_faults(gene, min(n, gene.max_active or n))


def _share_faults(gene: Gene, n: int) -> Iterator[Fault]:
    low, high = gene.range or (0.0, 1.0)
    if high != 1.0 or not 0.0 <= low < 1.0 / n:
        text = (
            "with sum_to_one, expected the smallest share and 1, such as [0, 1] "
            f"(at most 1/{n} each is left for {n} experts), got [{low:g}, {high:g}]"
        )
        yield Fault(("range",), text)
    if gene.initial is not None or gene.log:
        text = "shares start out equal and are not logarithmic"
        yield Fault((), text, "leave initial and log out")


def _range_faults(gene: Gene, declared: Parameter) -> Iterator[Fault]:
    if gene.choice is not None:
        yield Fault(("choice",), "this parameter is a number", "use range: [low, high]")
    if declared.prepares is True:
        text = "each value is matrix algebra over all tensors, which no trial can wait for"
        yield Fault((), text, "give it one value under fixed")
        return
    bounds = gene.range or ((0.0, 1.0) if gene.sum_to_one else declared.search)
    if bounds is None:
        yield Fault(("range",), "there is no usual range", "give one")
        return
    low, high = bounds
    if not low < high:
        text = f"expected [low, high] with low < high, got [{low:g}, {high:g}]"
        yield Fault(("range",), text)
    for edge in bounds:
        if reason := declared.fault(float(edge)):
            yield Fault(("range",), reason)
    if gene.log and low <= 0:
        text = f"a logarithmic range must be positive, got [{low:g}, {high:g}]"
        yield Fault(("log",), text)
    initial = gene.initial
    for value in initial.values() if isinstance(initial, Mapping) else [initial]:
        if low < high and value is not None and not low <= value <= high:
            text = f"expected a value in [{low:g}, {high:g}], got {value:g}"
            yield Fault(("initial",), text)
