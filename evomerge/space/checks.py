"""What can be wrong with a parameter space, found before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.errors import RecipeError
from evomerge.methods.base import Method, Parameter
from evomerge.methods.registry import method
from evomerge.models.architecture import KINDS
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import Gene, Groups, ParameterSpec

__all__ = ["spec_faults"]


def spec_faults(spec: ParameterSpec, models: ModelSet) -> list[str]:
    """List every fault of a space, one line each; empty if all is well."""
    methods, faults = _known_methods(spec)
    faults += _depth_faults(spec, models)
    faults += _module_faults(spec)
    for name, gene in spec.genes.items():
        declared = [m.parameters()[name] for m in methods if name in m.parameters()]
        if declared:
            faults += _gene_faults(name, gene, declared[0])
        elif methods:
            faults.append(f"genes.{name}: no method here ({', '.join(spec.methods)}) has it")
    faults += _fixed_faults(spec, methods)
    experts = tuple(models.experts)
    for kind in methods:
        faults += [f"method: {fault}" for fault in kind.faults({}, experts)]
    return faults


def _known_methods(spec: ParameterSpec) -> tuple[list[type[Method]], list[str]]:
    methods, faults = [], []
    for name in spec.methods:
        try:
            methods.append(method(name))
        except RecipeError as err:
            faults.append(f"method: {err}")
    if not spec.methods:
        faults.append("method.choice: expected at least one method, got none")
    return methods, faults


def _depth_faults(spec: ParameterSpec, models: ModelSet) -> list[str]:
    depth = spec.depth
    if isinstance(depth, Groups) and not 1 <= depth.groups <= models.n_layers:
        return [
            f"depth.groups: expected 1 to {models.n_layers} (the models' layers), "
            f"got {depth.groups}"
        ]
    return []


def _module_faults(spec: ParameterSpec) -> Iterator[str]:
    listed = [kind for kinds in spec.modules.values() for kind in kinds]
    for kind in KINDS:
        if listed.count(kind) != 1:
            yield (
                f"modules: expected {kind!r} in exactly one group, found it {listed.count(kind)} "
                f"times; the kinds are {', '.join(KINDS)}"
            )
    for group in spec.modules:
        if "." in group:
            yield f"modules.{group}: group names must not contain a dot"


def _gene_faults(name: str, gene: Gene, declared: Parameter) -> Iterator[str]:
    where = f"genes.{name}"
    bounds = gene.range or declared.search
    if bounds is None:
        yield f"{where}.range: {name} has no usual range; give one"
        return
    low, high = bounds
    if not low < high:
        yield f"{where}.range: expected [low, high] with low < high, got [{low:g}, {high:g}]"
    for edge in bounds:
        if fault := declared.fault(float(edge)):
            yield f"{where}.range: {fault}"
    if gene.log and low <= 0:
        yield f"{where}.log: a logarithmic range must be positive, got [{low:g}, {high:g}]"
    if gene.initial is not None and not low <= gene.initial <= high:
        yield f"{where}.initial: expected a value in [{low:g}, {high:g}], got {gene.initial:g}"
    if gene.per is not None and "expert" in gene.per and not declared.per_expert:
        yield f"{where}.per: all experts share {name}; leave 'expert' out"


def _fixed_faults(spec: ParameterSpec, methods: list[type[Method]]) -> Iterator[str]:
    for name, value in spec.fixed.items():
        declared = [m.parameters()[name] for m in methods if name in m.parameters()]
        if name in spec.genes:
            yield f"fixed.{name}: it is a gene already; remove one of the two"
        elif not declared and methods:
            yield f"fixed.{name}: no method here ({', '.join(spec.methods)}) has it"
        elif declared and not isinstance(value, dict) and (fault := declared[0].fault(value)):
            yield f"fixed.{name}: {fault}"
