"""What can be wrong with a parameter space, found before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evomerge.errors import RecipeError
from evomerge.methods.base import Method
from evomerge.methods.declared import Parameter
from evomerge.methods.modifiers import MODIFIERS, modifier_faults
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
    faults += modifier_faults({name: {} for name in spec.modifiers}, tuple(models.experts))
    known = _known_parameters(spec, methods)
    nowhere = f"no method here ({', '.join(spec.methods)}) has it"
    for name, gene in spec.all_genes.items():
        if name in known:
            faults += _gene_faults(f"genes.{name}", gene, known[name])
        elif methods and not _of_unknown_modifier(name):
            faults.append(f"genes.{name}: {nowhere}")
    for name, value in spec.all_fixed.items():
        if name in spec.genes:
            faults.append(f"fixed.{name}: it is a gene already; remove one of the two")
        elif name in known:
            faults += _fixed_faults(f"fixed.{name}", value, known[name])
        elif methods and not _of_unknown_modifier(name):
            faults.append(f"fixed.{name}: {nowhere}")
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


def _gene_faults(where: str, gene: Gene, declared: Parameter) -> Iterator[str]:
    if gene.per is not None and "expert" in gene.per and not declared.per_expert:
        yield f"{where}.per: all experts share this parameter; leave 'expert' out"
    is_number = not declared.choices and not isinstance(declared.default, bool)
    if is_number:
        yield from _range_faults(where, gene, declared)
        return
    if gene.range is not None:
        yield f"{where}.range: this parameter is no number; use choice: [...]"
    for value in gene.choice or ():
        if fault := declared.fault(value):
            yield f"{where}.choice: {fault}"


def _range_faults(where: str, gene: Gene, declared: Parameter) -> Iterator[str]:
    if gene.choice is not None:
        yield f"{where}.choice: this parameter is a number; use range: [low, high]"
    bounds = gene.range or declared.search
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
    if gene.initial is not None and not low <= gene.initial <= high:
        yield f"{where}.initial: expected a value in [{low:g}, {high:g}], got {gene.initial:g}"


def _fixed_faults(where: str, value: object, declared: Parameter) -> Iterator[str]:
    values = value.values() if isinstance(value, Mapping) else [value]
    for one in values:
        if fault := declared.fault(one):
            yield f"{where}: {fault}"
