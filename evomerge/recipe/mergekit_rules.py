"""mergekit's settings as rules: evaluated tensor by tensor, then gathered into a short list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from evomerge.errors import RecipeError
from evomerge.methods.base import ParameterValue, Scalar
from evomerge.methods.registry import method
from evomerge.models.architecture import TensorRole
from evomerge.recipe.mergekit_file import MergekitFile, Settings, Slice, mergekit_name, resolve
from evomerge.recipe.recipe import Rule, Selector

__all__ = ["in_a_layer", "rules_of_settings"]

K = TypeVar("K")
V = TypeVar("V")

_REQUIRED = ("weight", "t")
_DEFAULTS: Mapping[str, Scalar] = {"density": 1.0}  # where mergekit's differ from ours
_ABSENT = {"weight": 0.0, "density": 1.0}  # of a model that a slice does not list


def rules_of_settings(
    file: MergekitFile,
    slices: Mapping[range, Slice],
    experts: Mapping[str, str],
    roles: Mapping[str, TensorRole],
) -> tuple[Rule, ...]:
    """Evaluate the settings of a file and write them as few rules.

    Args:
        file: The file.
        slices: Its slices by the layers they are for; together all layers.
        experts: Expert name by mergekit's model name.
        roles: Of every tensor.

    Raises:
        RecipeError: A parameter that mergekit requires has no value for some tensor.
    """
    rules = {}
    for name, role in roles.items():
        layers, piece = next((ls, piece) for ls, piece in slices.items() if role.layer in ls)
        # Tensors outside the layers take the start of a gradient, a slice of one layer its end.
        t = (role.layer - layers.start) / (len(layers) - 1) if len(layers) > 1 else 1.0
        rules[name] = _rule(file, piece, experts, name, t if in_a_layer(name, role) else 0.0)
    return _gathered(rules, roles, _filters(file))


def in_a_layer(name: str, role: TensorRole) -> bool:
    """Tell tensors of decoder layers from those before and after, whose role borrows a layer."""
    return f".{role.layer}." in f".{name}"


def _rule(
    file: MergekitFile, piece: Slice, experts: Mapping[str, str], name: str, t: float
) -> Rule:
    """Evaluate all parameters for one tensor."""
    shared = (piece.parameters, file.parameters)
    own = {source.model: source.parameters for source in piece.sources}
    parameters: dict[str, ParameterValue] = {}
    for ours, parameter in method(file.merge_method).parameters().items():
        key = mergekit_name(ours)
        default = None if key in _REQUIRED else _DEFAULTS.get(key, parameter.default)
        if parameter.per_expert:
            parameters[ours] = {
                expert: _value((own[model], *shared), key, name, t, default)
                if model in own
                else _ABSENT[key]
                for model, expert in experts.items()
            }
        else:
            value = _value(shared, key, name, t, default)
            if value != default:
                parameters[ours] = value
    return Rule(file.merge_method, parameters)


def _value(
    scopes: Iterable[Settings], key: str, name: str, t: float, default: Scalar | None
) -> Scalar:
    found = resolve(scopes, key, name, t)
    value = default if found is None else found
    if value is None:
        raise RecipeError(
            f"mergekit file: expected a value of {key} for tensor {name} of every model, found "
            "none; mergekit has no default for it"
        )
    # Beyond [0, 1], mergekit's sparsifiers do what they do at the ends.
    return min(max(float(value), 0.0), 1.0) if key == "density" else value


def _filters(file: MergekitFile) -> list[str]:
    scopes = [file.parameters]
    for piece in file.slices:
        scopes += [piece.parameters, *(source.parameters for source in piece.sources)]
    cases = [case for settings in scopes for cases in settings.values() for case in cases]
    return list(dict.fromkeys(case.filter for case in cases if case.filter not in (None, "*")))


def _gathered(
    rules: Mapping[str, Rule], roles: Mapping[str, TensorRole], filters: Sequence[str]
) -> tuple[Rule, ...]:
    """Find few rules whose first match for each tensor is that tensor's rule.

    Relies on tensors of one layer that contain the same filters having equal rules.
    """
    classes: dict[tuple[str, ...], dict[int, Rule]] = {}
    outside: list[tuple[list[str], Rule]] = []
    for name, rule in rules.items():
        if in_a_layer(name, roles[name]):
            contained = tuple(part for part in filters if part in name)
            classes.setdefault(contained, {})[roles[name].layer] = rule
        else:
            _join(outside, name, rule)
    alike: list[tuple[list[tuple[str, ...]], tuple[int, dict[int, Rule]]]] = []
    for contained, by_layer in classes.items():
        _join(alike, contained, (len(contained), by_layer))
    # A tensor also matches the classes of fewer filters than it contains: the fullest come first.
    alike.sort(key=lambda item: item[1][0], reverse=True)
    gathered = [replace(rule, where=Selector(names=_any_of(names))) for names, rule in outside]
    for contained_in, (_, by_layer) in alike:
        gathered += _by_layer(_all_of_any(contained_in), by_layer)
    return _needed(gathered, rules, roles)


def _join(groups: list[tuple[list[K], V]], member: K, value: V) -> None:
    """Add a member to the group that has its value (which need not be hashable)."""
    for members, common in groups:
        if common == value:
            members.append(member)
            return
    groups.append(([member], value))


def _any_of(names: Iterable[str]) -> str:
    return f"^({'|'.join(re.escape(name) for name in names)})$"


def _all_of_any(classes: Iterable[tuple[str, ...]]) -> str | None:
    """Select names that contain every filter of one of the classes; ``None`` for all names."""
    patterns = []
    for parts in classes:
        if not parts:
            return None
        ahead = "".join(f"(?=.*{re.escape(part)})" for part in parts)
        patterns.append(re.escape(parts[0]) if len(parts) == 1 else f"^{ahead}")
    return "|".join(patterns)


def _by_layer(names: str | None, rule_of: Mapping[int, Rule]) -> Iterator[Rule]:
    """Join neighbouring layers with equal rules."""
    runs = [
        (rule, [layer for layer, _ in run])
        for rule, run in groupby(sorted(rule_of.items()), key=lambda item: item[1])
    ]
    for rule, layers in runs:
        where = (layers[0], layers[-1] + 1) if len(runs) > 1 else None
        yield replace(rule, where=Selector(layers=where, names=names))


def _needed(
    gathered: Sequence[Rule], rules: Mapping[str, Rule], roles: Mapping[str, TensorRole]
) -> tuple[Rule, ...]:
    """Leave out rules whose tensors all find an equal one further down."""
    matches = {
        name: [i for i, rule in enumerate(gathered) if rule.where.matches(name, roles[name])]
        for name in rules
    }
    same = [replace(rule, where=Selector()) for rule in gathered]
    needed = []
    for i, rule in enumerate(gathered):
        decided = [name for name, found in matches.items() if found[0] == i]
        if all(len(matches[n]) > 1 and same[matches[n][1]] == rules[n] for n in decided):
            for name in decided:
                del matches[name][0]
        else:
            needed.append(rule)
    return tuple(needed)
