"""What a mergekit file may say.

mergekit ignores keys it does not know; here they are faults, so that no setting is lost silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from evomerge.errors import ConfigError, Fault, KeyPath, RecipeError, brief, did_you_mean
from evomerge.recipe.mergekit.keys import (
    COUNTERPARTS,
    PASSTHROUGH,
    known_parameters,
    misplaced_parameters,
    unknown_parameters,
)
from evomerge.schema import parse

__all__ = [
    "Case",
    "MergekitFile",
    "Number",
    "Settings",
    "Slice",
    "Source",
    "Tokenizer",
    "read_file",
]

Number = bool | float


def _as_number(value: object) -> bool | float:
    if isinstance(value, (bool, int, float)):
        return value
    try:
        return float(str(value))  # YAML reads 1e-3, without a dot, as text
    except ValueError:
        raise ValueError(f"expected a number, true or false, got {brief(value)}") from None


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _as_cases(setting: object) -> object:
    if isinstance(setting, Mapping):
        return [setting]
    if isinstance(setting, list) and any(isinstance(part, Mapping) for part in setting):
        return setting
    return [{"value": setting}]


def _as_reference(model: object) -> object:
    """Flatten ``{model: {path, revision}}`` to the text ``path@revision``; refuse adapters."""
    adapter = model.get("lora") if isinstance(model, Mapping) else "+" in str(model)
    if adapter:
        raise RecipeError(
            f"expected whole models in the mergekit file, got {brief(model)}, a model with an "
            "adapter, which cannot be imported yet; merge the adapter first and name the folder"
        )
    if isinstance(model, Mapping) and set(model) <= {"model", "lora"}:
        model = model.get("model")
    if isinstance(model, Mapping) and set(model) <= {"path", "revision"}:
        revision = model.get("revision")
        model = f"{model.get('path')}@{revision}" if revision else model.get("path")
    return model


def _or_empty(settings: object) -> object:
    return {} if settings is None else settings


@dataclass(frozen=True)
class Case:
    """One entry of a setting.

    Attributes:
        value: One value, or a gradient from the first to the last layer.
        filter: Substring of the tensor names it is for; ``None`` or ``*`` is every tensor.
    """

    value: Annotated[
        tuple[Annotated[Number, BeforeValidator(_as_number)], ...],
        BeforeValidator(_as_list),
        Field(min_length=1),
    ]
    filter: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def matches(self, name: str) -> bool:
        """Tell whether the entry is for a tensor."""
        return self.filter in (None, "*") or self.filter in name

    def at(self, t: float) -> Number:
        """Interpolate at a position from 0 (first layer) to 1; booleans take the one before."""
        position = t * (len(self.value) - 1)
        before = int(position)
        after = min(before + 1, len(self.value) - 1)
        if any(isinstance(value, bool) for value in self.value):
            return self.value[before]
        share = position - before
        return (1 - share) * self.value[before] + share * self.value[after]


Model = Annotated[str, BeforeValidator(_as_reference)]
Settings = Annotated[
    dict[str, Annotated[tuple[Case, ...], BeforeValidator(_as_cases)]], BeforeValidator(_or_empty)
]


@dataclass(frozen=True)
class Source:
    """One input model of a slice."""

    model: Model
    layer_range: tuple[int, int] | None = None
    parameters: Settings = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Slice:
    """A run of output layers and what it is made of."""

    sources: tuple[Source, ...]
    base_model: Model | None = None
    parameters: Settings = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Tokenizer:
    """Where the tokenizer comes from, and what happens to single tokens."""

    source: Model = "union"
    tokens: dict[str, Any] | None = None
    pad_to_multiple_of: int | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class MergekitFile:
    """The whole file; after reading, whole ``models`` are one slice over all layers."""

    merge_method: str
    models: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    modules: dict[str, Any] | None = None
    base_model: Model | None = None
    parameters: Settings = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer: Tokenizer | None = None
    tokenizer_source: Model | None = None
    chat_template: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


def read_file(content: Mapping[str, Any]) -> MergekitFile:
    """Check the content of a mergekit file.

    Args:
        content: As YAML gives it.

    Raises:
        ConfigError: Unknown keys, parameters the method does not have, values of a wrong type.
        RecipeError: The method, or something in the file, has no counterpart here.
    """
    name = content.get("merge_method")
    methods = (*COUNTERPARTS, PASSTHROUGH)
    if name not in methods:
        hint = did_you_mean(str(name), methods) or ", which cannot be imported yet"
        raise RecipeError(
            f"expected a mergekit method out of {', '.join(methods)}, got {brief(name)}{hint}"
        )
    file = parse(MergekitFile, content, misplaced_parameters(name))
    if file.modules is not None or bool(file.models) == bool(file.slices):
        raise RecipeError(
            "expected either models or slices, got both, neither, or modules, which cannot be "
            "imported yet"
        )
    if faults := list(_parameter_faults(file)):
        raise ConfigError(*faults)
    return file if file.slices else replace(file, models=(), slices=(_whole(file),))


def _whole(file: MergekitFile) -> Slice:
    """Make a slice of whole models; only here mergekit adds the base by itself."""
    listed = [source.model for source in file.models]
    if file.base_model is None or file.base_model in listed or file.merge_method == PASSTHROUGH:
        return Slice(file.models)
    return Slice((*file.models, Source(file.base_model)))


def _parameter_faults(file: MergekitFile) -> Iterator[Fault]:
    for path, settings, of_one_model in _scopes(file):
        known = known_parameters(file.merge_method, of_one_model=of_one_model)
        for fault in unknown_parameters(settings, known):
            yield fault.under(*path, "parameters")


def _scopes(file: MergekitFile) -> Iterator[tuple[KeyPath, Settings, bool]]:
    """List all groups of parameters: where they are, and whether they are of one model."""
    yield (), file.parameters, False
    groups: list[tuple[KeyPath, tuple[Source, ...]]] = [(("models",), file.models)]
    for i, piece in enumerate(file.slices):
        yield ("slices", i), piece.parameters, False
        groups.append((("slices", i, "sources"), piece.sources))
    for path, sources in groups:
        for i, source in enumerate(sources):
            yield (*path, i), source.parameters, True
