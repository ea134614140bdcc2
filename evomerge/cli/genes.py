"""The genes of a search space as a table that stays short."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evomerge.space.protocol import GeneInfo

__all__ = ["gene_rows"]

_MOST_ROWS = 8  # of a table that lists every gene by itself
_FAMILY = 3  # genes that are worth one row together


def gene_rows(genes: Sequence[GeneInfo]) -> Iterator[tuple[str, str, str, str]]:
    """Describe genes; where there are many, those that mean the same as one row.

    Args:
        genes: All genes of a space, in its order.

    Yields:
        Name or pattern of names, range, neutral value, meaning.
    """
    for family in _families(genes):
        if len(genes) <= _MOST_ROWS or len(family) < _FAMILY:
            yield from ((g.name, g.range, _text(g.initial), g.meaning) for g in family)
            continue
        neutral = dict.fromkeys(_text(gene.initial) for gene in family)
        meaning = f"{len(family)} genes, the first: {family[0].meaning}"
        names = [gene.name for gene in family]
        yield name_pattern(names), family[0].range, " or ".join(neutral), meaning


def name_pattern(names: Sequence[str]) -> str:
    """Write names as one pattern, such as ``density.{attention, mlp}.{0-3}``.

    Names that are not all combinations of their parts become ``first … last``.
    """
    parts = [name.split(".") for name in names]
    axes = [list(dict.fromkeys(axis)) for axis in zip(*parts, strict=False)]
    if len({len(one) for one in parts}) > 1 or prod(map(len, axes)) != len(names):
        return f"{names[0]} … {names[-1]}"
    return ".".join(axis[0] if len(axis) == 1 else _braces(axis) for axis in axes)


def _braces(values: Sequence[str]) -> str:
    first, last = values[0], values[-1]
    if first.isdigit() and [str(n) for n in range(int(first), int(first) + len(values))] == values:
        return f"{{{first}-{last}}}"
    return f"{{{', '.join(values)}}}"


def _families(genes: Sequence[GeneInfo]) -> list[list[GeneInfo]]:
    """Gather genes whose range is the same, and whose meaning but for whom and where."""
    families: dict[tuple[str, str], list[GeneInfo]] = {}
    for gene in genes:
        meaning = re.sub(r"\d+", "#", gene.meaning.rpartition(": ")[2])
        families.setdefault((gene.range, meaning), []).append(gene)
    return list(families.values())


def _text(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
