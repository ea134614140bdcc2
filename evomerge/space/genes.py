"""The genes of a parameter space: which there are, how they are called, what values they take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from evomerge.methods.declared import Parameter
from evomerge.methods.modifiers import MODIFIERS
from evomerge.methods.registry import method
from evomerge.models.architecture import TensorRole
from evomerge.space.depth import Place, module_cells, peak
from evomerge.space.protocol import ModelSet, Params
from evomerge.space.simplex import even_break
from evomerge.space.spec import ControlPoints, Gene, MethodChoice, ParameterSpec

__all__ = ["EXPERTS", "METHOD", "Genes", "Use", "declared_parameters", "tensors_by_module"]

METHOD, EXPERTS = "method", "experts"  # genes that are no parameter


@dataclass(frozen=True)
class Use:
    """One thing that a gene decides.

    Attributes:
        parameter: Of a method or modifier; or ``method``, or ``experts`` for who takes part.
        place: Where.
        expert: Whose; ``None`` if experts do not differ.
    """

    parameter: str
    place: Place
    expert: str | None = None


def declared_parameters(spec: ParameterSpec) -> dict[str, dict[str, Parameter]]:
    """List what may vary: parameters by method, and ``modifier:parameter`` under every method.

    Methods and modifiers must exist.
    """
    modifiers = {
        f"{name}:{key}": parameter
        for name in spec.modifiers
        for key, parameter in MODIFIERS[name].parameters().items()
    }
    return {name: {**method(name).parameters(), **modifiers} for name in spec.methods}


def tensors_by_module(spec: ParameterSpec, models: ModelSet) -> dict[str, dict[str, TensorRole]]:
    """Sort every tensor into its module group; groups that choose by name come first."""
    import re

    found: dict[str, dict[str, TensorRole]] = {g: {} for g in (*spec.named_modules, *spec.kinds)}
    patterns = {group: (re.compile(m.names), m.kinds) for group, m in spec.named_modules.items()}
    of_kind = {kind: group for group, kinds in spec.kinds.items() for kind in kinds}
    for name, role in models.roles.items():
        named = (
            group
            for group, (pattern, kinds) in patterns.items()
            if pattern.search(name) and (kinds is None or role.kind in kinds)
        )
        found[next(named, of_kind[role.kind])][name] = role
    return found


class Genes:
    """Names and ranges of genes, and which of them matter.

    A gene is called by its parameter, then whatever it has a copy for: module group, depth group
    or control point, expert, e.g. ``coefficient.attention.0.math``.

    Args:
        spec: A space without faults.
        models: What is mixed.

    Attributes:
        cells: Tensors by shared values, in the order of their rules.
        places: Where genes sit, in order.
    """

    def __init__(self, spec: ParameterSpec, models: ModelSet) -> None:
        self._spec, self._models = spec, models
        self._declared = declared_parameters(spec)
        self._parameters = {k: p for found in self._declared.values() for k, p in found.items()}
        groups = tensors_by_module(spec, models)
        self.cells = tuple(
            cell
            for module, tensors in groups.items()
            for cell in module_cells(module, spec.depth, models.n_layers, tensors)
        )
        self.places = tuple(dict.fromkeys(p for cell in self.cells for p, _ in cell.shares))

    @cached_property
    def uses(self) -> Mapping[str, list[Use]]:
        """What each gene decides; genes in a fixed order: methods, who takes part, parameters."""
        found: dict[str, list[Use]] = defaultdict(list)
        for use in self._all_uses():
            found[self.name(use)].append(use)
        return dict(found)

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The values of every gene, in order."""
        return {name: self._distribution(uses[0].parameter) for name, uses in self.uses.items()}

    @cached_property
    def defaults(self) -> Params:
        """A neutral value for each gene."""
        return {name: self._default(uses[0]) for name, uses in self.uses.items()}

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """The depth group or control point of every gene that has a copy for each."""
        deep = {name: uses[0] for name, uses in self.uses.items() if self._has_depth(uses[0])}
        return {name: use.place.depth for name, use in deep.items()}

    def name(self, use: Use) -> str:
        """Name the gene that decides something."""
        per = self._axes(use.parameter)
        parts = [use.parameter]
        if "module" in per and len(self._spec.groups) > 1:
            parts.append(use.place.module)
        if self._has_depth(use):
            parts.append(str(use.place.depth))
        if use.expert is not None and "expert" in per:
            parts.append(use.expert)
        return ".".join(parts)

    def is_active(self, gene: str, params: Params) -> bool:
        """Tell whether a gene matters, given those before it in order."""
        return any(self._matters(use, params) for use in self.uses[gene])

    def method_at(self, place: Place, params: Params) -> str:
        """Read the method of one place."""
        methods = self._spec.methods
        return methods[0] if len(methods) == 1 else str(params[self.name(Use(METHOD, place))])

    def experts_at(self, place: Place, params: Params) -> tuple[str, ...]:
        """List the experts that take part in one place."""
        limited = self._spec.limited
        if limited is None or not self.has(self.method_at(place, params), limited):
            return tuple(self._models.experts)
        return tuple(str(params[self.name(Use(EXPERTS, place))]).split("+"))

    def varying(self, method_name: str) -> list[str]:
        """List the genes' parameters that a method has."""
        return [name for name in self._spec.all_genes if name in self._declared[method_name]]

    def has(self, method_name: str, parameter: str) -> bool:
        """Tell whether a method (or its modifiers) has a parameter."""
        return parameter in self._declared[method_name]

    def owners(self, parameter: str) -> tuple[str | None, ...]:
        """List who has a value: every expert, or ``None`` for a shared parameter."""
        return tuple(self._models.experts) if self.declared(parameter).per_expert else (None,)

    def declared(self, parameter: str) -> Parameter:
        """Return the declaration of a parameter."""
        return self._parameters[parameter]

    def bounds(self, parameter: str) -> tuple[float, float]:
        """Return the range of a numeric parameter."""
        gene = self._spec.all_genes[parameter]
        if gene.sum_to_one:
            return gene.range or (0.0, 1.0)
        bounds = gene.range or self.declared(parameter).search
        assert bounds is not None, "the checks refuse numeric genes without a range"
        return bounds

    def varies_with_depth(self, parameter: str) -> bool:
        """Tell whether the depth groups (or control points) have values of their own."""
        return "depth" in self._axes(parameter)

    def meaning(self, gene: str) -> str:
        """Say in words what a gene does."""
        use = self.uses[gene][0]
        per = self._axes(use.parameter)
        parts = [
            use.expert if "expert" in per else None,
            self._depth_text(use.place) if "depth" in per else None,
            use.place.module if "module" in per and len(self._spec.groups) > 1 else None,
        ]
        where = ", ".join(part for part in parts if part)
        return f"{where}: {self._help(use)}" if where else self._help(use)

    def _all_uses(self) -> Iterator[Use]:
        if len(self._spec.methods) > 1:
            yield from (Use(METHOD, place) for place in self.places)
        if self._spec.limited is not None:
            yield from (Use(EXPERTS, place) for place in self.places)
        for parameter, gene in self._spec.all_genes.items():
            owners = self.owners(parameter)
            # The last of several shares is what the others leave.
            owners = owners[:-1] if gene.sum_to_one else owners
            yield from (Use(parameter, place, owner) for place in self.places for owner in owners)

    def _matters(self, use: Use, params: Params) -> bool:
        if use.parameter == METHOD:
            return True
        wanted = self._spec.limited if use.parameter == EXPERTS else use.parameter
        if not self.has(self.method_at(use.place, params), str(wanted)):
            return False
        if use.parameter == EXPERTS or use.expert is None:
            return True
        experts = self.experts_at(use.place, params)
        if use.expert not in experts or not self._spec.all_genes[use.parameter].sum_to_one:
            return use.expert in experts
        before = experts[: experts.index(use.expert)]
        taken = (params[self.name(Use(use.parameter, use.place, e))] for e in before)
        return use.expert != experts[-1] and all(part != 1.0 for part in taken)

    def _has_depth(self, use: Use) -> bool:
        return "depth" in self._axes(use.parameter) and self._spec.depth != "global"

    def _axes(self, parameter: str) -> tuple[str, ...]:
        if parameter == METHOD:
            choice = self._spec.method
            return choice.per if isinstance(choice, MethodChoice) else ()
        if parameter == EXPERTS:
            return self._axes(str(self._spec.limited))
        per = self._spec.all_genes[parameter].per
        if per is not None:
            return per
        return ("depth", "module", "expert") if self.declared(parameter).per_expert else ()

    def _distribution(self, parameter: str) -> BaseDistribution:
        if parameter == METHOD:
            return CategoricalDistribution(self._spec.methods)
        if parameter == EXPERTS:
            return CategoricalDistribution(self._expert_choices())
        gene, declared = self._spec.all_genes[parameter], self.declared(parameter)
        if choices := _choices(gene, declared):
            return CategoricalDistribution(choices)
        if gene.sum_to_one:
            return FloatDistribution(0.0, 1.0)
        low, high = self.bounds(parameter)
        return FloatDistribution(low, high, log=gene.log)

    def _expert_choices(self) -> tuple[str, ...]:
        names, most = tuple(self._models.experts), self._most_active
        return tuple("+".join(c) for n in range(1, most + 1) for c in combinations(names, n))

    @property
    def _most_active(self) -> int:
        limit = self._spec.all_genes[str(self._spec.limited)].max_active
        assert limit is not None, "this is the gene with a limit"
        return limit

    def _default(self, use: Use) -> float | int | str:
        if use.parameter == METHOD:
            return self._spec.methods[0]
        n = len(self._models.experts)
        if use.parameter == EXPERTS:  # the first choice of as many experts as may take part
            return self._expert_choices()[sum(comb(n, k) for k in range(1, self._most_active))]
        gene, declared = self._spec.all_genes[use.parameter], self.declared(use.parameter)
        if choices := _choices(gene, declared):
            return declared.default if declared.default in choices else choices[0]
        if gene.sum_to_one:
            return even_break(list(self._models.experts).index(str(use.expert)), n)
        return _initial(gene, use.expert, self.bounds(use.parameter))

    def _help(self, use: Use) -> str:
        if use.parameter == METHOD:
            return "merge method"
        if use.parameter == EXPERTS:
            return "experts that take part; the others have 0"
        text = self.declared(use.parameter).help
        if not self._spec.all_genes[use.parameter].sum_to_one:
            return text
        return f"{text}: share of what the experts before it leave (grows with this gene)"

    def _depth_text(self, place: Place) -> str:
        cells = [cell for cell in self.cells if place in dict(cell.shares)]
        if isinstance(self._spec.depth, ControlPoints):
            return f"around layer {peak(cells, place).layers[0]}"
        first, last = cells[0].layers[0], cells[-1].layers[1] - 1
        return f"layer {first}" if first == last else f"layers {first}-{last}"


def _initial(gene: Gene, expert: str | None, bounds: tuple[float, float]) -> float:
    value = gene.initial.get(str(expert)) if isinstance(gene.initial, Mapping) else gene.initial
    return sum(bounds) / 2 if value is None else value


def _choices(gene: Gene, declared: Parameter) -> tuple[bool | str, ...]:
    """List the values of a parameter that is no number; empty for numbers."""
    if gene.choice is not None:
        return gene.choice
    if isinstance(declared.default, bool):
        return (False, True)
    return declared.choices
