"""A recipe as a mergekit file: one slice per run of layers that are merged alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from evomerge.errors import RecipeError
from evomerge.methods.base import Method
from evomerge.methods.linear import Linear
from evomerge.methods.parameters import divisor
from evomerge.models.architecture import Architecture, TensorRole
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.parts import parts_of
from evomerge.models.reference import absolute_reference, relative_reference, resolve_model
from evomerge.recipe.mergekit.filters import setting_of
from evomerge.recipe.mergekit.keys import COUNTERPARTS, PASSTHROUGH, Counterpart, counterpart_of
from evomerge.recipe.mergekit.tokenizers import mergekit_tokenizer
from evomerge.recipe.mergekit.unstacking import copied_slices
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Recipe
from evomerge.schema import write_yaml

__all__ = ["to_mergekit"]

_HEADER = """\
For mergekit 0.1.5 or later. What differs from evomerge's merge of the same recipe:
- sums are rounded in another order;
- config and tokenizer are those of base_model{method}.
"""
_STACK_HEADER = """\
For mergekit 0.1.5 or later. Tensors are those that evomerge writes; config and tokenizer are those
of base_model.
"""
_PLACE_HEADER = "Folders are named from where this file lies: run mergekit there.\n"
_MODEL_KEYS = ("model", "base_model", "path", "source")
_ONLY_FULL_MODELS = "mergekit merges full models; this recipe has adapters or deltas"

_Values = Mapping[str, Any]  # of one tensor: a number, or one per expert, by mergekit's name


def to_mergekit(recipe: Recipe, *, beside: Path | None = None) -> str:
    """Write a recipe as a mergekit file.

    Opens the anchor for its layers and tensor names. mergekit has no place for the seed.

    Args:
        recipe: All its tensors are merged by one method that mergekit has too, or it has a path
            through unmerged layers.
        beside: Folder of the file to be; model folders are named from there, where mergekit must be
            run. Absent: absolute.

    Returns:
        YAML text; a comment on top says in what mergekit's result differs.

    Raises:
        RecipeError: The recipe is not valid, or mergekit cannot do what it says.
        CheckpointError: The anchor cannot be opened.
    """
    recipe.require_merge()
    anchor = Checkpoint(resolve_model(recipe.anchor))
    if parts_of(anchor.config) is not None:
        raise RecipeError(
            "expected a model of text alone, got one of vision and language in "
            f"{anchor.folder}: mergekit has no words for where its parts come from"
        )
    roles = Architecture(anchor.config, anchor.names).roles
    if recipe.path:
        return _text(_stack(recipe, anchor, roles), _STACK_HEADER, beside)
    merge_method, values = _values(recipe, roles)
    counterpart = COUNTERPARTS[merge_method]
    base, models = _models(recipe, counterpart)
    slices = _runs_of_layers(values, roles)
    first = next(iter(values.values()))
    shared = [key for key, value in first.items() if not isinstance(value, tuple)]
    varying = [p for p in shared if len(slices) > 1 and len({v[p] for v in values.values()}) > 1]
    parameters = _shared(values, [p for p in shared if p not in varying])
    # Where it is no source, mergekit would add the base to whole models.
    plain = len(slices) == 1 and (base is None or base in models)
    content = _present(
        merge_method=merge_method,
        base_model=None if base is None else _reference(base),
        models=_sources(models, values) if plain else None,
        slices=None if plain else _slices(models, slices, varying),
        parameters=parameters,
        dtype="float32",  # of the arithmetic
        out_dtype=recipe.dtype or _dtype_of(anchor),
        **_tokenizer(recipe),
    )
    return _text(content, _HEADER.format(method=counterpart.difference), beside)


def _text(content: dict[str, Any], header: str, beside: Path | None) -> str:
    if beside is None:
        return write_yaml(content, header)
    return write_yaml(_located(content, beside), header + _PLACE_HEADER)


def _located(content: Any, beside: Path) -> Any:
    """Name all model folders from where the file lies."""
    if isinstance(content, list):
        return [_located(part, beside) for part in content]
    if not isinstance(content, dict):
        return content
    return {
        key: relative_reference(value, beside)
        if key in _MODEL_KEYS and isinstance(value, str)
        else _located(value, beside)
        for key, value in content.items()
    }


def _stack(recipe: Recipe, anchor: Checkpoint, roles: Mapping[str, TensorRole]) -> dict[str, Any]:
    """Write a recipe with a path."""
    slices = [
        {
            "sources": [
                _present(
                    model=_reference(_full_model(recipe, copied.source)),
                    layer_range=[copied.layers.start, copied.layers.stop],
                    parameters=None if copied.scale == 1.0 else {"scale": copied.scale},
                )
            ]
        }
        for copied in copied_slices(recipe, roles, anchor.config.get("model_type"))
    ]
    return _present(
        merge_method=PASSTHROUGH,
        base_model=_reference(recipe.anchor),
        slices=slices,
        dtype="float32",  # of the arithmetic
        out_dtype=recipe.dtype or _dtype_of(anchor),
        **_tokenizer(recipe),
    )


def _tokenizer(recipe: Recipe) -> dict[str, Any]:
    if recipe.tokenizer is None:
        return {}
    anchor = next(iter(recipe.experts)) if recipe.base is None else BASE

    def model_of(name: str) -> Any:
        return _reference(_full_model(recipe, name if recipe.base or name != BASE else anchor))

    return mergekit_tokenizer(recipe.tokenizer, model_of)


def _full_model(recipe: Recipe, source: str) -> str:
    reference = recipe.base if source == BASE else recipe.experts[source]
    if not isinstance(reference, str):
        raise RecipeError(_ONLY_FULL_MODELS)
    return reference


def _values(recipe: Recipe, roles: Mapping[str, TensorRole]) -> tuple[str, dict[str, _Values]]:
    """Find mergekit's method for all tensors, and the parameters of each."""
    if any(rule.modifiers for rule in recipe.rules):
        raise RecipeError("mergekit has no modifiers; export the recipe itself, or the model")
    bound = recipe.bound_methods
    chosen = {name: bound[recipe.rule_for(name, role)] for name, role in roles.items()}
    methods = sorted({m.name for m in chosen.values()})
    if len(methods) > 1:
        raise RecipeError(
            f"mergekit runs one method per file, got a recipe of {', '.join(methods)}; export the "
            "recipe itself, or the model"
        )
    found = counterpart_of(methods[0])
    if found is None:
        known = ", ".join(counterpart.ours for counterpart in COUNTERPARTS.values())
        raise RecipeError(f"mergekit has no method {methods[0]!r}, only {known}")
    return found[0], {name: _parameters(m, found[1]) for name, m in chosen.items()}


def _parameters(bound: Method, counterpart: Counterpart) -> _Values:
    # The field of a parameter whose name is a Python keyword ends in "_".
    ours = {key.rstrip("_"): value for key, value in vars(bound).items()}
    for name, possible in counterpart.alone.items():
        for value in _each(ours.get(name, possible[0])):
            _check(bound, name, value, value in possible, possible)
    theirs: dict[str, Any] = {}
    for name, key in counterpart.keys.items():
        value = key.theirs(ours[name])
        _check(bound, name, ours[name], value is not None, key.values or ())
        theirs[key.name] = value
    theirs = counterpart.exported(theirs)
    _check_window(bound, theirs)
    if isinstance(bound, Linear) and sum(bound.coefficient) != divisor(
        bound.coefficient, normalize=True
    ):
        theirs["normalize"] = False  # where mergekit would divide by zero, and we by one
    return theirs


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _check(bound: Method, name: str, value: Any, is_known: bool, known: Iterable[Any]) -> None:
    if not is_known:
        raise RecipeError(
            f"mergekit has no parameter {name!r} for {bound.name}: expected "
            f"{' or '.join(map(str, known))}, which it does, got {value!r}"
        )


def _check_window(bound: Method, theirs: _Values) -> None:
    """Refuse ranges of probabilities that mergekit refuses and we cut."""
    if not {"density", "epsilon"} <= theirs.keys():
        return
    for density, epsilon in zip(theirs["density"], theirs["epsilon"], strict=True):
        if 0.0 < density < 1.0 and not 0.0 < density - epsilon <= density + epsilon < 1.0:
            raise RecipeError(
                f"mergekit merges by {bound.name} only where density - epsilon and density + "
                f"epsilon lie between 0 and 1, got density {density:g} and epsilon {epsilon:g}"
            )


def _models(recipe: Recipe, counterpart: Counterpart) -> tuple[str | None, tuple[str, ...]]:
    """Find base_model, and the sources of each slice: the experts, then what is read besides."""
    experts = tuple(ref for ref in recipe.experts.values() if isinstance(ref, str))
    if len(experts) < len(recipe.experts):
        raise RecipeError(_ONLY_FULL_MODELS)
    base = recipe.base if counterpart.base == "optional" else recipe.anchor
    models = experts
    if counterpart.ours == "slerp" and len(experts) == 2:
        base = experts[0]
    elif base is not None and counterpart.base != "model":
        models = (*experts, base)
    listed = [str(_reference(model)) for model in models]
    if len(set(listed)) < len(listed):
        raise RecipeError(f"mergekit merges each model once, got {', '.join(listed)}")
    return base, models


def _reference(reference: str) -> str | dict[str, dict[str, str]]:
    """Write a model as mergekit reads it, which has no zoo and starts folders elsewhere."""
    if reference.startswith("zoo:"):
        return str(resolve_model(reference))
    absolute = absolute_reference(reference, Path())
    if Path(absolute).is_dir() and set(absolute) & set("+@"):  # else read as adapter or revision
        return {"model": {"path": absolute}}
    return absolute


def _runs_of_layers(
    values: Mapping[str, _Values], roles: Mapping[str, TensorRole]
) -> dict[range, dict[str, _Values]]:
    """Join neighbouring layers that are merged alike; tensors outside go with the nearest."""
    profiles: dict[int, dict[str, _Values]] = {}
    for name, role in roles.items():
        if role.in_layer:
            part_of_layer = f".{name}".partition(f".{role.layer}.")[2]
            profiles.setdefault(role.layer, {})[part_of_layer] = values[name]
    runs = [list(run) for _, run in groupby(sorted(profiles), key=profiles.__getitem__)]
    return {
        range(run[0], run[-1] + 1): {n: v for n, v in values.items() if roles[n].layer in run}
        for run in runs
    }


def _slices(
    models: tuple[str, ...], slices: Mapping[range, Mapping[str, _Values]], varying: list[str]
) -> list[dict[str, Any]]:
    return [
        _present(sources=_sources(models, values, layers), parameters=_shared(values, varying))
        for layers, values in slices.items()
    ]


def _sources(
    models: tuple[str, ...], values: Mapping[str, _Values], layers: range | None = None
) -> list[dict[str, Any]]:
    """Write the models of a slice, or whole models."""
    first = next(iter(values.values()))
    per_expert = [key for key, value in first.items() if isinstance(value, tuple)]
    return [
        _present(
            model=_reference(model),
            layer_range=[layers.start, layers.stop] if layers else None,
            parameters={
                key: setting_of({n: v[key][i] for n, v in values.items()})
                for key in per_expert
                if i < len(first[key])  # the base comes last and has none
            },
        )
        for i, model in enumerate(models)
    ]


def _shared(values: Mapping[str, _Values], parameters: list[str]) -> dict[str, Any]:
    return {key: setting_of({n: v[key] for n, v in values.items()}) for key in parameters}


def _dtype_of(checkpoint: Checkpoint) -> str:
    return str(checkpoint.tensor(checkpoint.names[0]).dtype).removeprefix("torch.")


def _present(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value}
