"""The fewest mergekit filters that give each tensor its value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from evomerge.errors import RecipeError
from evomerge.recipe.mergekit.file import Number

__all__ = ["setting_of"]


def setting_of(values: Mapping[str, Number]) -> Any:
    """Write one value per tensor as a mergekit setting.

    Args:
        values: By tensor name, not empty; all tensors the setting can apply to.

    Returns:
        The value where all agree; else a list of ``{filter, value}`` that ends with a fallback. A
        filter is for the tensors whose name contains it.

    Raises:
        RecipeError: No part of a tensor's name tells it from the others.
    """
    fallback = Counter(values.values()).most_common(1)[0][0]
    entries: list[dict[str, Any]] = []
    for value in dict.fromkeys(values.values()):
        if value != fallback:
            own = [name for name in values if values[name] == value]
            others = [name for name in values if values[name] != value]
            entries += [{"filter": part, "value": value} for part in _filters(own, others)]
    return [*entries, {"value": fallback}] if entries else fallback


def _filters(own: Collection[str], others: Collection[str]) -> list[str]:
    """Cover some names with parts that occur in no other name, each time the widest."""
    usable = {part for name in own for part in _parts(name)}
    usable = {part for part in usable if not any(part in other for other in others)}
    chosen: list[str] = []
    while missing := [name for name in own if not any(part in name for part in chosen)]:
        if not any(part in missing[0] for part in usable):
            raise RecipeError(
                f"mergekit selects tensors by a part of their name, and none tells {missing[0]} "
                "from tensors with other parameters; give them the same rule"
            )
        chosen.append(
            min(usable, key=lambda part: (-sum(part in n for n in missing), len(part), part))
        )
    return chosen


def _parts(name: str) -> Iterator[str]:
    """List runs of dotted components, without layer numbers, and the whole name."""
    yield name
    words = name.split(".")
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            if not any(word.isdigit() for word in words[start:stop]):
                yield ".".join(words[start:stop])
