"""What a mergekit file may say, and what its settings mean for one tensor.

mergekit ignores keys it does not know; here they are faults, so that no setting is lost silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from evomerge.errors import ConfigError, RecipeError
from evomerge.methods.registry import method
from evomerge.schema import parse

__all__ = [
    "METHODS",
    "Case",
    "MergekitFile",
    "Number",
    "Settings",
    "Slice",
    "Source",
    "Tokenizer",
    "mergekit_name",
    "read_file",
    "resolve",
]

Number = bool | float

METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp")
_NAMES = {"coefficient": "weight"}  # ours: theirs, where they differ
# Read by mergekit, but without effect on the result of these methods.
_WITHOUT_EFFECT = {"task_arithmetic": ("density", "rescale")}
_RESCALES = {"ties": False, "dare_linear": True, "dare_ties": True}


def mergekit_name(parameter: str) -> str:
    """Translate one of our parameter names."""
    return _NAMES.get(parameter, parameter)


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
            f"expected whole models in the mergekit file, got {model!r}, a model with an adapter, "
            "which cannot be imported yet; merge the adapter first and name the folder"
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

    value: Annotated[tuple[Number, ...], BeforeValidator(_as_list), Field(min_length=1)]
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


def resolve(scopes: Iterable[Settings], parameter: str, name: str, t: float) -> Number | None:
    """Find the value of a parameter for one tensor.

    Args:
        scopes: Settings, those of highest precedence first.
        parameter: mergekit's name.
        name: Tensor name.
        t: Position in the slice, 0 to 1.

    Returns:
        The first entry that is for the tensor; ``None`` if no scope has one.
    """
    for settings in scopes:
        for case in settings.get(parameter, ()):
            if case.matches(name):
                return case.at(t)
    return None


def read_file(content: Mapping[str, Any]) -> MergekitFile:
    """Check the content of a mergekit file.

    Args:
        content: As YAML gives it.

    Raises:
        ConfigError: Unknown keys, parameters the method does not have, values of a wrong type.
        RecipeError: The method, or something in the file, has no counterpart here.
    """
    name = content.get("merge_method")
    if name not in METHODS:
        raise RecipeError(
            f"expected a mergekit method out of {', '.join(METHODS)}, got {name!r}, which cannot "
            "be imported yet"
        )
    file = parse(MergekitFile, content, "mergekit file")
    if file.modules is not None or bool(file.models) == bool(file.slices):
        raise RecipeError(
            "mergekit file: expected either models or slices, got both, neither, or modules, which "
            "cannot be imported yet"
        )
    if faults := list(_parameter_faults(file)):
        raise ConfigError(*(f"mergekit file: {fault}" for fault in faults))
    return file if file.slices else replace(file, models=(), slices=(_whole(file),))


def _whole(file: MergekitFile) -> Slice:
    """Make a slice of whole models; only here mergekit adds the base by itself."""
    listed = [source.model for source in file.models]
    if file.base_model is None or file.base_model in listed:
        return Slice(file.models)
    return Slice((*file.models, Source(file.base_model)))


def _parameter_faults(file: MergekitFile) -> Iterator[str]:
    name = file.merge_method
    declared = method(name).parameters().values()
    of_models = {mergekit_name(p.name) for p in declared if p.per_expert}
    of_models |= {"int8_mask", *_WITHOUT_EFFECT.get(name, ())}
    shared = of_models | {mergekit_name(p.name) for p in declared}
    yield from _scope_faults("parameters", file.parameters, shared, name)
    slices = [("", Slice(file.models))]
    slices += [(f"slices.{i}.", piece) for i, piece in enumerate(file.slices)]
    for where, piece in slices:
        yield from _scope_faults(f"{where}parameters", piece.parameters, shared, name)
        for j, source in enumerate(piece.sources):
            place = f"{where}sources.{j}.parameters" if where else f"models.{j}.parameters"
            yield from _scope_faults(place, source.parameters, of_models, name)


def _scope_faults(where: str, settings: Settings, known: set[str], name: str) -> Iterator[str]:
    for key, cases in settings.items():
        if key == "rescale" and name in _RESCALES:
            _check_rescale(where, cases, name)
        elif key not in known:
            near = get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; {name} reads no such key here"
            yield f"{where}.{key}: unknown key{hint}"


def _check_rescale(where: str, cases: tuple[Case, ...], name: str) -> None:
    if any(value is not _RESCALES[name] for case in cases for value in case.value):
        wanted = str(_RESCALES[name]).lower()
        raise RecipeError(
            f"mergekit file: {where}.rescale: expected {wanted}, the only way {name} works here; "
            "remove the key"
        )
