"""The search-space language: the YAML keys of a parameter space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from evomerge.methods.base import ParameterValue
from evomerge.models.architecture import Kind

__all__ = ["Axis", "Depth", "Gene", "Groups", "MethodChoice", "ParameterSpec"]

Axis = Literal["depth", "module", "expert"]

_ALL_MODULES: Mapping[str, tuple[Kind, ...]] = {
    "all": ("attention", "mlp", "norm", "embedding", "head")
}


@dataclass(frozen=True)
class Groups:
    """Split the layers into N groups of (nearly) equal size."""

    groups: int

    __pydantic_config__ = ConfigDict(extra="forbid")


Depth = Literal["global", "per_layer"] | Groups


@dataclass(frozen=True)
class Gene:
    """How one parameter of a method or modifier varies.

    Attributes:
        range: Lowest and highest value of a number; absent: the range the method suggests.
        choice: Values to choose from, for parameters that are names or truth values.
        per: What has its own copy. Absent: ``[depth, module, expert]`` for a parameter that each
            expert has, ``[]`` for a shared one.
        log: Whether to search on a logarithmic scale.
        initial: Neutral value; absent: the middle of the range.
    """

    range: tuple[float, float] | None = None
    choice: tuple[bool | str, ...] | None = None
    per: tuple[Axis, ...] | None = None
    log: bool = False
    initial: float | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class MethodChoice:
    """The method as a gene.

    Attributes:
        choice: Method names.
        per: Axes along which the choice may differ: ``depth``, ``module``.
    """

    choice: tuple[str, ...]
    per: tuple[Literal["depth", "module"], ...] = ()

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter space as written in YAML.

    Attributes:
        kind: ``parameter``.
        method: One method, or several to choose from.
        genes: By method parameter. A gene is active where the chosen method has the parameter.
        depth: How layers share genes.
        modules: Kinds of module by group name; groups have genes of their own.
        fixed: Method parameters that do not vary; methods without one ignore it.
        modifiers: By modifier and parameter: a gene, or a value that does not vary. A modifier's
            gene is called ``modifier:parameter``.
    """

    method: str | MethodChoice
    genes: Mapping[str, Gene]
    kind: Literal["parameter"] = "parameter"
    depth: Depth = "global"
    modules: Mapping[str, tuple[Kind, ...]] = field(default_factory=lambda: _ALL_MODULES)
    fixed: Mapping[str, ParameterValue] = field(default_factory=dict)
    modifiers: Mapping[str, Mapping[str, Gene | ParameterValue]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method that may be used."""
        return (self.method,) if isinstance(self.method, str) else self.method.choice

    @property
    def all_genes(self) -> dict[str, Gene]:
        """Genes of methods by parameter, of modifiers by ``modifier:parameter``."""
        inside = {k: v for k, v in self._modifier_settings().items() if isinstance(v, Gene)}
        return {**self.genes, **inside}

    @property
    def all_fixed(self) -> dict[str, ParameterValue]:
        """Fixed values, named as ``all_genes`` names genes."""
        inside = {k: v for k, v in self._modifier_settings().items() if not isinstance(v, Gene)}
        return {**self.fixed, **inside}

    def _modifier_settings(self) -> dict[str, Gene | ParameterValue]:
        return {
            f"{modifier}:{parameter}": value
            for modifier, values in self.modifiers.items()
            for parameter, value in values.items()
        }
