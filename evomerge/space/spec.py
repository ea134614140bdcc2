"""The search-space language: the YAML keys of a parameter space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Tag

from evomerge.methods.base import ParameterValue
from evomerge.models.architecture import Kind

__all__ = [
    "Axis",
    "Boundaries",
    "ControlPoints",
    "Depth",
    "Gene",
    "Groups",
    "Importance",
    "MethodChoice",
    "Module",
    "Named",
    "ParameterSpec",
]

Axis = Literal["depth", "module", "expert"]

_ALL_MODULES: Mapping[str, tuple[Kind, ...]] = {
    "all": ("attention", "mlp", "norm", "embedding", "head")
}


@dataclass(frozen=True)
class Groups:
    """Split the layers into N groups of (nearly) equal size."""

    groups: int

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Boundaries:
    """Split the layers into groups that start at the given layers; the first is 0."""

    boundaries: tuple[int, ...]

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Importance:
    """Split the layers into N groups that matter equally, going by the experts' task vectors.

    A study replaces it by the ``Boundaries`` it comes to when it is created.
    """

    importance: int

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ControlPoints:
    """Give K evenly spread layers genes of their own; the others interpolate between them."""

    control_points: int

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Named:
    """Modules by a regular expression that is searched in the tensor name.

    ``with_groups`` restricts it to the language tower where a model has other parts, too.
    """

    names: str
    kinds: tuple[Kind, ...] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


def _form(value: object) -> str:
    """Name the form a value is written in, so that faults are about that form only.

    In brackets, for names of forms are no part of a key's path.
    """
    return f"({','.join(value)})" if isinstance(value, Mapping) else "(plain)"


Depth = Annotated[
    Annotated[Literal["global", "per_layer"], Tag("(plain)")]
    | Annotated[Groups, Tag("(groups)")]
    | Annotated[Boundaries, Tag("(boundaries)")]
    | Annotated[ControlPoints, Tag("(control_points)")]
    | Annotated[Importance, Tag("(importance)")],
    Discriminator(
        _form,
        custom_error_type="depth",
        custom_error_message="Expected global, per_layer, {groups: N}, {control_points: K}, "
        "{boundaries: [0, ...]} or {importance: N}",
    ),
]
Module = Annotated[
    Annotated[tuple[Kind, ...], Tag("(plain)")] | Annotated[Named, Tag("(names)")],
    Discriminator(
        _form,
        custom_error_type="module",
        custom_error_message="Expected a list of kinds or {names: REGEX}",
    ),
]


def _modules_form(value: object) -> str | None:
    if isinstance(value, Mapping):
        return "(groups)"
    return "(plain)" if value == "per_tensor" else None


Modules = Annotated[
    Annotated[Literal["per_tensor"], Tag("(plain)")]
    | Annotated[Mapping[str, Module], Tag("(groups)")],
    Discriminator(
        _modules_form,
        custom_error_type="modules",
        custom_error_message="Expected per_tensor or groups by name, each a list of kinds or "
        "{names: REGEX}",
    ),
]


@dataclass(frozen=True)
class Gene:
    """How one parameter of a method or modifier varies.

    Attributes:
        range: Lowest and highest value of a number; absent: the range the method suggests. With
            ``sum_to_one``: smallest share and 1; absent: 0 and 1.
        choice: Values to choose from, for parameters that are names or truth values.
        per: What has its own copy. Absent: ``[depth, module, expert]`` for a parameter that each
            expert has, ``[]`` for a shared one.
        log: Whether to search on a logarithmic scale.
        initial: Neutral value, or one per expert; absent: the middle of the range.
        sum_to_one: Whether the experts' values are shares of one whole.
        max_active: At most so many experts take part; the others have 0. Which ones is a gene.
    """

    range: tuple[float, float] | None = None
    choice: tuple[bool | str, ...] | None = None
    per: tuple[Axis, ...] | None = None
    log: bool = False
    initial: float | Mapping[str, float] | None = None
    sum_to_one: bool = False
    max_active: int | None = None

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
        method: One method, or several to choose from.
        genes: By method parameter. A gene is active where the chosen method has the parameter.
        depth: How layers share genes.
        modules: Kinds of module, or names of tensors, by group name; groups have genes of their
            own. A tensor belongs to the first group that names it, else to that of its kind.
            ``per_tensor``, and what becomes of vision tower and projector: see ``tensor_groups``.
        fixed: Method parameters that do not vary; methods without one ignore it.
        modifiers: By modifier and parameter: a gene, or a value that does not vary. A modifier's
            gene is called ``modifier:parameter``.
    """

    method: str | MethodChoice
    genes: Mapping[str, Gene]
    kind: Literal["parameter"] = "parameter"
    depth: Depth = "global"
    modules: Modules = field(default_factory=lambda: _ALL_MODULES)
    fixed: Mapping[str, ParameterValue] = field(default_factory=dict)
    modifiers: Mapping[str, Mapping[str, Gene | ParameterValue]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method that may be used."""
        return (self.method,) if isinstance(self.method, str) else self.method.choice

    @property
    def groups(self) -> Mapping[str, Module]:
        """Module groups by name; ``per_tensor`` must have been written out."""
        assert self.modules != "per_tensor", "written out by tensor_groups"
        return self.modules

    @property
    def named_modules(self) -> dict[str, Named]:
        """Groups that choose by name, by their own name."""
        return {g: part for g, part in self.groups.items() if isinstance(part, Named)}

    @property
    def kinds(self) -> dict[str, tuple[Kind, ...]]:
        """Kinds of module by the name of their group."""
        return {g: part for g, part in self.groups.items() if not isinstance(part, Named)}

    @cached_property
    def limited(self) -> str | None:
        """The parameter that says how many experts may take part, if there is one."""
        return next((name for name, g in self.all_genes.items() if g.max_active is not None), None)

    @cached_property
    def all_genes(self) -> dict[str, Gene]:
        """Genes of methods by parameter, of modifiers by ``modifier:parameter``."""
        inside = {k: v for k, v in self._modifier_settings().items() if isinstance(v, Gene)}
        return {**self.genes, **inside}

    @cached_property
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
