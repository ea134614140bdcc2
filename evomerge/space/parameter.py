"""The parameter space: which coefficients, densities and methods, per depth group and module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from evomerge.errors import SpaceError
from evomerge.methods.base import Method, Parameter, ParameterValue
from evomerge.methods.registry import method
from evomerge.models.architecture import TensorRole
from evomerge.recipe.recipe import Recipe, Rule, Selector
from evomerge.space.checks import spec_faults
from evomerge.space.protocol import GeneInfo, ModelSet, Params
from evomerge.space.spec import Gene, Groups, ParameterSpec

__all__ = ["Cell", "ParameterSpace"]

_SAME = 1e-9  # two parameter values closer than this make the same model


@dataclass(frozen=True)
class Cell:
    """Tensors that share all their genes: one depth group of one module group.

    Attributes:
        module: Name of the module group.
        depth: Position of the depth group.
        layers: Half-open range of layers.
    """

    module: str
    depth: int
    layers: tuple[int, int]


class ParameterSpace:
    """Decodes genes to one rule per cell; implements ``SearchSpace``.

    Args:
        spec: What varies.
        models: What is mixed.

    Raises:
        SpaceError: Listing every fault of the spec, one line each.
    """

    def __init__(self, spec: ParameterSpec, models: ModelSet) -> None:
        faults = spec_faults(spec, models)
        if faults:
            raise SpaceError("\n".join(faults))
        self._spec, self._models = spec, models
        self.cells = tuple(self._make_cells())
        self._methods: dict[str, type[Method]] = {name: method(name) for name in spec.methods}

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """See ``SearchSpace``."""
        found: dict[str, BaseDistribution] = {}
        if len(self._spec.methods) > 1:
            choices = CategoricalDistribution(self._spec.methods)
            found.update(dict.fromkeys((self._method_gene(cell) for cell in self.cells), choices))
        for parameter, gene in self._spec.genes.items():
            low, high = self._range(parameter)
            found.update(
                {
                    self._gene(parameter, cell, expert): FloatDistribution(low, high, log=gene.log)
                    for cell in self.cells
                    for expert in self._owners(parameter)
                }
            )
        return found

    @cached_property
    def defaults(self) -> Params:
        """See ``SearchSpace``."""
        values: dict[str, float | int | str] = {}
        for name, distribution in self.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                values[name] = self._spec.methods[0]
            else:
                values[name] = self._initial(name.split(".")[0])
        return values

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``."""
        params: dict[str, float | int | str] = {}
        for name, distribution in self.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                params[name] = str(trial.suggest_categorical(name, distribution.choices))
        for name in self._active_genes(params):
            range_ = self.distributions[name]
            assert isinstance(range_, FloatDistribution), "only methods are categorical here"
            params[name] = trial.suggest_float(name, range_.low, range_.high, log=range_.log)
        return params

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        rules = tuple(self._rule(cell, params) for cell in self.cells)
        if all(_same_content(rule, rules[0]) for rule in rules):
            rules = (Rule(rules[0].method, rules[0].parameters),)
        return Recipe(
            base=self._models.base,
            experts=self._models.experts,
            rules=rules,
            dtype=self._models.dtype,
            seed=self._models.seed,
        )

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``; compares method and parameter values cell by cell."""
        if (recipe.base, dict(recipe.experts)) != (self._models.base, dict(self._models.experts)):
            return None
        params: dict[str, float | int | str] = {}
        for cell in self.cells:
            used = {recipe.rule_for("", role) for role in self._roles(cell)}
            if any(rule.where.names for rule in recipe.rules) or len(used) != 1:
                return None
            rule = recipe.rules[used.pop()]
            if rule.method not in self._methods:
                return None
            params.update(self._read_genes(cell, rule))
        return params if self._in_range(params) and self._decodes_to(params, recipe) else None

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        return [
            GeneInfo(name, _range_text(distribution), self.defaults[name], self._meaning(name))
            for name, distribution in self.distributions.items()
        ]

    def _make_cells(self) -> Iterator[Cell]:
        n_layers, depth = self._models.n_layers, self._spec.depth
        shares = {"global": 1, "per_layer": n_layers}
        n_groups = depth.groups if isinstance(depth, Groups) else shares[depth]
        edges = [round(i * n_layers / n_groups) for i in range(n_groups + 1)]
        for module in self._spec.modules:
            for i in range(n_groups):
                yield Cell(module=module, depth=i, layers=(edges[i], edges[i + 1]))

    def _gene(self, parameter: str, cell: Cell, expert: str | None) -> str:
        gene = self._spec.genes[parameter]
        per = self._axes(parameter, gene)
        parts = [parameter]
        if "module" in per and len(self._spec.modules) > 1:
            parts.append(cell.module)
        if "depth" in per and self._spec.depth != "global":
            parts.append(str(cell.depth))
        if "expert" in per and expert is not None:
            parts.append(expert)
        return ".".join(parts)

    def _method_gene(self, cell: Cell) -> str:
        choice = self._spec.method
        per = () if isinstance(choice, str) else choice.per
        parts = ["method"]
        if "module" in per and len(self._spec.modules) > 1:
            parts.append(cell.module)
        if "depth" in per and self._spec.depth != "global":
            parts.append(str(cell.depth))
        return ".".join(parts)

    def _method_of(self, cell: Cell, params: Params) -> str:
        methods = self._spec.methods
        return methods[0] if len(methods) == 1 else str(params[self._method_gene(cell)])

    def _active_genes(self, params: Params) -> list[str]:
        active = {
            self._gene(parameter, cell, expert)
            for cell in self.cells
            for parameter in self._varying(self._method_of(cell, params))
            for expert in self._owners(parameter)
        }
        return [name for name in self.distributions if name in active]

    def _varying(self, method_name: str) -> list[str]:
        declared = self._methods[method_name].parameters()
        return [name for name in self._spec.genes if name in declared]

    def _declared(self, parameter: str) -> Parameter:
        owners = (m.parameters() for m in self._methods.values())
        return next(declared[parameter] for declared in owners if parameter in declared)

    def _owners(self, parameter: str) -> tuple[str | None, ...]:
        per_expert = self._declared(parameter).per_expert
        return tuple(self._models.experts) if per_expert else (None,)

    def _axes(self, parameter: str, gene: Gene) -> tuple[str, ...]:
        if gene.per is not None:
            return gene.per
        return ("depth", "module", "expert") if self._declared(parameter).per_expert else ()

    def _range(self, parameter: str) -> tuple[float, float]:
        declared = self._spec.genes[parameter].range or self._declared(parameter).search
        assert declared is not None, "spec_faults refuses genes without a range"
        return declared

    def _initial(self, parameter: str) -> float:
        initial = self._spec.genes[parameter].initial
        return sum(self._range(parameter)) / 2 if initial is None else initial

    def _rule(self, cell: Cell, params: Params) -> Rule:
        name = self._method_of(cell, params)
        declared = self._methods[name].parameters()
        values: dict[str, ParameterValue] = {
            key: value for key, value in self._spec.fixed.items() if key in declared
        }
        for parameter in self._varying(name):
            values[parameter] = self._value(parameter, cell, params)
        where = Selector(
            layers=None if self._spec.depth == "global" else cell.layers,
            kinds=None if len(self._spec.modules) == 1 else tuple(self._spec.modules[cell.module]),
        )
        return Rule(method=name, parameters=values, where=where)

    def _value(self, parameter: str, cell: Cell, params: Params) -> ParameterValue:
        if not self._declared(parameter).per_expert:
            return float(params[self._gene(parameter, cell, None)])
        experts = self._models.experts
        return {e: float(params[self._gene(parameter, cell, e)]) for e in experts}

    def _in_range(self, params: Params) -> bool:
        ranges = {name: self.distributions[name] for name in params}
        return all(
            r.low <= float(params[name]) <= r.high
            for name, r in ranges.items()
            if isinstance(r, FloatDistribution)
        )

    def _roles(self, cell: Cell) -> Iterator[TensorRole]:
        for layer in range(*cell.layers):
            for kind in self._spec.modules[cell.module]:
                yield TensorRole(layer, kind)

    def _read_genes(self, cell: Cell, rule: Rule) -> dict[str, float | int | str]:
        found: dict[str, float | int | str] = {}
        if len(self._spec.methods) > 1:
            found[self._method_gene(cell)] = rule.method
        declared = self._methods[rule.method].parameters()
        for parameter in self._varying(rule.method):
            value = rule.parameters.get(parameter, declared[parameter].default)
            for expert in self._owners(parameter):
                number = value[expert or ""] if isinstance(value, Mapping) else value
                low, high = self._range(parameter)
                # Values a rounding error outside the range belong to its edge.
                found[self._gene(parameter, cell, expert)] = _snap(float(number), low, high)
        return found

    def _decodes_to(self, params: Params, recipe: Recipe) -> bool:
        decoded = self.recipe(params)
        ours, theirs = decoded.bound_methods, recipe.bound_methods
        return all(
            _close(ours[decoded.rule_for("", role)], theirs[recipe.rule_for("", role)])
            for cell in self.cells
            for role in self._roles(cell)
        )

    def _meaning(self, gene: str) -> str:
        parameter, *parts = gene.split(".")
        help_ = "merge method" if parameter == "method" else self._declared(parameter).help
        layers = {str(cell.depth): _layers_text(cell.layers) for cell in self.cells}
        where = ", ".join(layers.get(part, part) for part in reversed(parts))
        return f"{where}: {help_}" if where else help_


def _same_content(one: Rule, other: Rule) -> bool:
    return (one.method, one.parameters) == (other.method, other.parameters)


def _snap(value: float, low: float, high: float) -> float:
    return min(max(value, low), high) if low - _SAME <= value <= high + _SAME else value


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


def _layers_text(layers: tuple[int, int]) -> str:
    first, last = layers[0], layers[1] - 1
    return f"layer {first}" if first == last else f"layers {first}-{last}"


def _range_text(distribution: BaseDistribution) -> str:
    if isinstance(distribution, FloatDistribution):
        return f"{distribution.low:g} to {distribution.high:g}" + (
            ", log" if distribution.log else ""
        )
    assert isinstance(distribution, CategoricalDistribution), "no other kinds are made here"
    return " | ".join(map(str, distribution.choices))
