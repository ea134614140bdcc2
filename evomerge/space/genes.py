"""The genes of a parameter space: which there are, how they are called, what values they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from evomerge.methods.declared import Parameter
from evomerge.methods.modifiers import MODIFIERS
from evomerge.methods.registry import method
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import Gene, Groups, ParameterSpec

__all__ = ["Cell", "Genes", "declared_parameters"]


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


class Genes:
    """Names and ranges of genes.

    A gene is called by its parameter, then whatever it has a copy for: module group, depth group,
    expert, e.g. ``coefficient.attention.0.math``.

    Args:
        spec: A space without faults.
        models: What is mixed.
    """

    def __init__(self, spec: ParameterSpec, models: ModelSet) -> None:
        self._spec, self._models = spec, models
        self._declared = declared_parameters(spec)
        self.cells = tuple(self._make_cells())

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Every gene in a fixed order: methods first, then parameters as the spec lists them."""
        found: dict[str, BaseDistribution] = {}
        if len(self._spec.methods) > 1:
            choices = CategoricalDistribution(self._spec.methods)
            found.update(dict.fromkeys((self.of_method(cell) for cell in self.cells), choices))
        for parameter in self._spec.all_genes:
            distribution = self._distribution(parameter)
            found.update(
                {
                    self.of(parameter, cell, expert): distribution
                    for cell in self.cells
                    for expert in self.owners(parameter)
                }
            )
        return found

    @cached_property
    def defaults(self) -> dict[str, float | int | str]:
        """A neutral value for each gene."""
        return {
            name: self._spec.methods[0] if name.startswith("method") else self._initial(name)
            for name in self.distributions
        }

    def of(self, parameter: str, cell: Cell, expert: str | None) -> str:
        """Name the gene of one parameter in one cell (and for one expert)."""
        per = self._axes(parameter)
        owner = expert if "expert" in per else None
        return self._name(parameter, per, cell, owner)

    def of_method(self, cell: Cell) -> str:
        """Name the gene that chooses the method of one cell."""
        choice = self._spec.method
        return self._name("method", () if isinstance(choice, str) else choice.per, cell, None)

    def method_of(self, cell: Cell, params: Mapping[str, float | int | str]) -> str:
        """Read the method of one cell."""
        methods = self._spec.methods
        return methods[0] if len(methods) == 1 else str(params[self.of_method(cell)])

    def varying(self, method_name: str) -> list[str]:
        """List the genes' parameters that a method (or a modifier) has."""
        return [name for name in self._spec.all_genes if name in self._declared[method_name]]

    def has(self, method_name: str, parameter: str) -> bool:
        """Tell whether a method (or a modifier) has a parameter."""
        return parameter in self._declared[method_name]

    def active(self, params: Mapping[str, float | int | str]) -> list[str]:
        """List the genes that matter for the methods chosen."""
        names = {
            self.of(parameter, cell, expert)
            for cell in self.cells
            for parameter in self.varying(self.method_of(cell, params))
            for expert in self.owners(parameter)
        }
        return [name for name in self.distributions if name in names]

    def owners(self, parameter: str) -> tuple[str | None, ...]:
        """List who has a value: every expert, or ``None`` for a shared parameter."""
        return tuple(self._models.experts) if self.declared(parameter).per_expert else (None,)

    def declared(self, parameter: str) -> Parameter:
        """Return the declaration of a parameter."""
        return next(found[parameter] for found in self._declared.values() if parameter in found)

    def bounds(self, parameter: str) -> tuple[float, float]:
        """Return the range of a numeric parameter."""
        bounds = self._spec.all_genes[parameter].range or self.declared(parameter).search
        assert bounds is not None, "the checks refuse numeric genes without a range"
        return bounds

    def meaning(self, gene: str) -> str:
        """Say in words what a gene does."""
        parameter, *parts = gene.split(".")
        help_ = "merge method" if parameter == "method" else self.declared(parameter).help
        layers = {str(cell.depth): _layers_text(cell.layers) for cell in self.cells}
        where = ", ".join(layers.get(part, part) for part in reversed(parts))
        return f"{where}: {help_}" if where else help_

    def _make_cells(self) -> Iterator[Cell]:
        n_layers, depth = self._models.n_layers, self._spec.depth
        shares = {"global": 1, "per_layer": n_layers}
        n_groups = depth.groups if isinstance(depth, Groups) else shares[depth]
        edges = [round(i * n_layers / n_groups) for i in range(n_groups + 1)]
        for module in self._spec.modules:
            for i in range(n_groups):
                yield Cell(module=module, depth=i, layers=(edges[i], edges[i + 1]))

    def _name(self, stem: str, per: tuple[str, ...], cell: Cell, expert: str | None) -> str:
        parts = [stem]
        if "module" in per and len(self._spec.modules) > 1:
            parts.append(cell.module)
        if "depth" in per and self._spec.depth != "global":
            parts.append(str(cell.depth))
        if expert is not None:
            parts.append(expert)
        return ".".join(parts)

    def _axes(self, parameter: str) -> tuple[str, ...]:
        per = self._spec.all_genes[parameter].per
        if per is not None:
            return per
        return ("depth", "module", "expert") if self.declared(parameter).per_expert else ()

    def _distribution(self, parameter: str) -> BaseDistribution:
        gene, declared = self._spec.all_genes[parameter], self.declared(parameter)
        if choices := _choices(gene, declared):
            return CategoricalDistribution(choices)
        low, high = self.bounds(parameter)
        return FloatDistribution(low, high, log=gene.log)

    def _initial(self, gene_name: str) -> float | int | str:
        parameter = gene_name.split(".", maxsplit=1)[0]
        gene, declared = self._spec.all_genes[parameter], self.declared(parameter)
        if choices := _choices(gene, declared):
            return declared.default if declared.default in choices else choices[0]
        return sum(self.bounds(parameter)) / 2 if gene.initial is None else gene.initial


def _choices(gene: Gene, declared: Parameter) -> tuple[bool | str, ...]:
    """List the values of a parameter that is no number; empty for numbers."""
    if gene.choice is not None:
        return gene.choice
    if isinstance(declared.default, bool):
        return (False, True)
    return declared.choices


def _layers_text(layers: tuple[int, int]) -> str:
    first, last = layers[0], layers[1] - 1
    return f"layer {first}" if first == last else f"layers {first}-{last}"
