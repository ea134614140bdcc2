"""What can be wrong with a parameter space, found before any model is loaded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from evomerge.errors import RecipeError, did_you_mean
from evomerge.methods.base import Method
from evomerge.methods.declared import Parameter, value_faults
from evomerge.methods.modifiers import MODIFIERS, modifier_faults
from evomerge.methods.registry import method
from evomerge.models.architecture import KINDS
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

__all__ = ["spec_faults"]


def spec_faults(spec: ParameterSpec, models: ModelSet) -> list[str]:
    """List every fault of a space, one line each; empty if all is well."""
    methods, faults = _known_methods(spec)
    experts = tuple(models.experts)
    faults += _depth_faults(spec, models)
    faults += _module_faults(spec, models)
    faults += modifier_faults({name: {} for name in spec.modifiers}, experts)
    known = _known_parameters(spec, methods)
    for name, gene in spec.all_genes.items():
        if name in known:
            faults += _gene_faults(f"genes.{name}", gene, known[name], models)
        elif methods and (name in spec.genes or not _of_unknown_modifier(name)):
            faults.append(f"genes.{name}: {_nowhere(name, spec, known)}")
    for name, value in spec.all_fixed.items():
        if name in spec.genes:
            faults.append(f"fixed.{name}: it is a gene already; remove one of the two")
        elif name in known:
            own = replace(known[name], name=name)
            faults += [f"fixed.{fault}" for fault in value_faults(own, value, experts)]
        elif methods and (name in spec.fixed or not _of_unknown_modifier(name)):
            faults.append(f"fixed.{name}: {_nowhere(name, spec, known)}")
    limited = [name for name, gene in spec.all_genes.items() if gene.max_active is not None]
    if len(limited) > 1:
        faults.append(f"genes: expected max_active on one gene, got it on {', '.join(limited)}")
    for kind in methods:
        faults += [f"method: {fault}" for fault in kind.faults({}, experts)]
    return faults


def _nowhere(name: str, spec: ParameterSpec, known: Collection[str]) -> str:
    hint = did_you_mean(name, known) or f", only {', '.join(known)}"
    return f"no method here ({', '.join(spec.methods)}) has it{hint}"


def _known_methods(spec: ParameterSpec) -> tuple[list[type[Method]], list[str]]:
    methods, faults = [], []
    for name in spec.methods:
        try:
            methods.append(method(name))
        except RecipeError as err:
            faults.append(f"method: {err}")
    if not spec.methods:
        faults.append("method.choice: expected at least one method, got none")
    if len(set(spec.methods)) < len(spec.methods):
        faults.append(f"method.choice: expected different ones, got {', '.join(spec.methods)}")
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


def _depth_faults(spec: ParameterSpec, models: ModelSet) -> Iterator[str]:
    last = models.n_layers
    match spec.depth:
        case Groups(groups=n) | Importance(importance=n) if not 1 <= n <= last:
            key = "groups" if isinstance(spec.depth, Groups) else "importance"
            yield f"depth.{key}: expected 1 to {last} (the models' layers), got {n}"
        case Importance():
            yield "depth.importance: needs the models' task vectors, which only an experiment has"
        case ControlPoints(control_points=n):
            if not 2 <= n <= last:
                yield (
                    f"depth.control_points: expected 2 to {last} (the models' layers), got {n}; "
                    "depth: global gives all layers the same values"
                )
            yield from _stepwise_faults(spec)
        case Boundaries(boundaries=starts):
            rising = all(one < other for one, other in pairwise(starts))
            if not starts or starts[0] != 0 or not rising or starts[-1] >= last:
                yield (
                    "depth.boundaries: expected the first layer of each group, rising from 0 to "
                    f"less than {last} (the models' layers), got {list(starts)}"
                )


def _stepwise_faults(spec: ParameterSpec) -> Iterator[str]:
    """Find choices that would have to be interpolated."""
    advice = (
        "cannot be interpolated over depth; leave depth out of 'per', or use depth: {groups: N}"
    )
    if isinstance(spec.method, MethodChoice) and "depth" in spec.method.per:
        yield f"method.per: a choice of methods {advice}"
    for name, gene in spec.all_genes.items():
        if gene.choice is not None and "depth" in (gene.per or ()):
            yield f"genes.{name}.per: a choice {advice}"
        if gene.max_active is not None and (gene.per is None or "depth" in gene.per):
            yield f"genes.{name}.max_active: a choice of experts {advice}"


def _module_faults(spec: ParameterSpec, models: ModelSet) -> Iterator[str]:
    listed = [kind for kinds in spec.kinds.values() for kind in kinds]
    for kind in KINDS:
        if listed.count(kind) != 1:
            yield (
                f"modules: expected {kind!r} in exactly one group, found it {listed.count(kind)} "
                f"times; the kinds are {', '.join(KINDS)}"
            )
    for group in spec.modules:
        if "." in group:
            yield f"modules.{group}: group names must not contain a dot"
    for group, names in spec.named_modules.items():
        try:
            found = any(map(re.compile(names).search, models.tensors))
        except re.error as err:
            yield f"modules.{group}.names: expected a regular expression, got {names!r} ({err})"
            continue
        if models.tensors and not found:
            example = next(iter(models.tensors))
            yield f"modules.{group}.names: {names!r} is in no tensor name, such as {example}"


def _gene_faults(where: str, gene: Gene, declared: Parameter, models: ModelSet) -> Iterator[str]:
    if gene.per is not None and "expert" in gene.per and not declared.per_expert:
        yield f"{where}.per: all experts share this parameter; leave 'expert' out"
    yield from _sharing_faults(where, gene, declared, models)
    is_number = not declared.choices and not isinstance(declared.default, bool)
    if is_number:
        yield from _range_faults(where, gene, declared)
        return
    if gene.range is not None:
        yield f"{where}.range: this parameter is no number; use choice: [...]"
    if gene.choice is not None and len(set(gene.choice)) < max(1, len(gene.choice)):
        yield f"{where}.choice: expected different values, at least one, got {list(gene.choice)}"
    for value in gene.choice or ():
        if fault := declared.fault(value):
            yield f"{where}.choice: {fault}"


def _sharing_faults(where: str, gene: Gene, declared: Parameter, models: ModelSet) -> Iterator[str]:
    """Check what ties the experts' values together."""
    n = len(models.experts)
    wanted = ["sum_to_one"] if gene.sum_to_one else []
    wanted += ["max_active"] if gene.max_active is not None else []
    per = gene.per or ("expert",)
    for key in wanted if not declared.per_expert or "expert" not in per else ():
        yield f"{where}.{key}: expected a parameter with a value per expert; leave it out"
    if gene.max_active is not None and not 1 <= gene.max_active <= n:
        yield f"{where}.max_active: expected 1 to {n} (the experts), got {gene.max_active}"
    low, high = gene.range or (declared.search or (0.0, 1.0) if not gene.sum_to_one else (0.0, 1.0))
    if gene.max_active is not None and low <= 0 <= high:
        yield (
            f"{where}.range: expected a range without 0, such as [0.05, 1], since an expert that "
            f"takes part at 0 is one that does not, got [{low:g}, {high:g}]"
        )
    if isinstance(gene.initial, Mapping):
        for name in sorted(gene.initial.keys() - models.experts.keys()):
            yield f"{where}.initial: {name!r} is not one of the experts {', '.join(models.experts)}"
    if gene.sum_to_one:
        yield from _share_faults(where, gene, min(n, gene.max_active or n))


def _share_faults(where: str, gene: Gene, n: int) -> Iterator[str]:
    low, high = gene.range or (0.0, 1.0)
    if high != 1.0 or not 0.0 <= low < 1.0 / n:
        yield (
            f"{where}.range: with sum_to_one, expected the smallest share and 1, such as [0, 1] "
            f"(at most 1/{n} each is left for {n} experts), got [{low:g}, {high:g}]"
        )
    if gene.initial is not None or gene.log:
        yield f"{where}: shares start out equal and are not logarithmic; leave initial and log out"


def _range_faults(where: str, gene: Gene, declared: Parameter) -> Iterator[str]:
    if gene.choice is not None:
        yield f"{where}.choice: this parameter is a number; use range: [low, high]"
    bounds = gene.range or ((0.0, 1.0) if gene.sum_to_one else declared.search)
    if bounds is None:
        yield f"{where}.range: there is no usual range; give one"
        return
    low, high = bounds
    if not low < high:
        yield f"{where}.range: expected [low, high] with low < high, got [{low:g}, {high:g}]"
    for edge in bounds:
        if fault := declared.fault(float(edge)):
            yield f"{where}.range: {fault}"
    if gene.log and low <= 0:
        yield f"{where}.log: a logarithmic range must be positive, got [{low:g}, {high:g}]"
    initial = gene.initial
    for value in initial.values() if isinstance(initial, Mapping) else [initial]:
        if value is not None and not low <= value <= high:
            yield f"{where}.initial: expected a value in [{low:g}, {high:g}], got {value:g}"
