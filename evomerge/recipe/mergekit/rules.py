"""One rule per tensor, gathered into a short list of rules with selectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from evomerge.models.architecture import TensorRole
from evomerge.recipe.recipe import Rule, Selector

__all__ = ["gather_rules"]

K = TypeVar("K")
V = TypeVar("V")


def gather_rules(
    rules: Mapping[str, Rule], roles: Mapping[str, TensorRole], filters: Sequence[str]
) -> tuple[Rule, ...]:
    """Find few rules that say the same as one rule per tensor.

    Args:
        rules: By tensor name, without selectors. Tensors of one layer whose names contain the same
            filters have equal rules.
        roles: By tensor name.
        filters: Substrings of tensor names.

    Returns:
        Rules whose first match for each tensor is that tensor's rule.
    """
    classes: dict[tuple[str, ...], dict[int, Rule]] = {}
    outside: list[tuple[list[str], Rule]] = []
    for name, rule in rules.items():
        if roles[name].in_layer:
            contained = tuple(part for part in filters if part in name)
            classes.setdefault(contained, {})[roles[name].layer] = rule
        else:
            _join(outside, name, rule)
    alike: list[tuple[list[tuple[str, ...]], tuple[int, dict[int, Rule]]]] = []
    # A tensor also matches the classes of fewer filters than it contains: the fullest come first.
    for contained in sorted(classes, key=len, reverse=True):
        _join(alike, contained, (len(contained), classes[contained]))
    found = [replace(rule, where=Selector(names=_any_of(names))) for names, rule in outside]
    for filter_sets, (_, by_layer) in alike:
        found += _by_layer(_all_of_any(filter_sets), by_layer)
    return _needed(found, rules, roles)


def _join(groups: list[tuple[list[K], V]], member: K, value: V) -> None:
    """Add a member to the group that has its value (which need not be hashable)."""
    for members, common in groups:
        if common == value:
            members.append(member)
            return
    groups.append(([member], value))


def _any_of(names: Iterable[str]) -> str:
    return f"^({'|'.join(re.escape(name) for name in names)})$"


def _all_of_any(filter_sets: Iterable[tuple[str, ...]]) -> str | None:
    """Select names that contain every filter of one of the sets; ``None`` for all names."""
    patterns = []
    for parts in filter_sets:
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
    candidates: Sequence[Rule], rules: Mapping[str, Rule], roles: Mapping[str, TensorRole]
) -> tuple[Rule, ...]:
    """Leave out rules whose tensors all find an equal one further down."""
    matches = {
        name: [i for i, rule in enumerate(candidates) if rule.where.matches(name, roles[name])]
        for name in rules
    }
    same = [replace(rule, where=Selector()) for rule in candidates]
    needed = []
    for i, rule in enumerate(candidates):
        decided = [name for name, found in matches.items() if found[0] == i]
        if all(len(matches[n]) > 1 and same[matches[n][1]] == rules[n] for n in decided):
            for name in decided:
                del matches[name][0]
        else:
            needed.append(rule)
    return tuple(needed)
