"""Paths: which layers a model runs, in what order; data flow as a part of the recipe.

The embeddings feed the first hop, the last one the final norm and the head. Both, and whatever
else lies outside the layers, are as the recipe's rules merge them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, groupby
from operator import mul
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from evomerge.errors import Fault

__all__ = [
    "BASE",
    "LARGEST_SCALE",
    "MERGED",
    "Hop",
    "Hops",
    "cumulative_scales",
    "path_data",
    "path_faults",
]

BASE, MERGED = "base", "merged"

LARGEST_SCALE = 256.0
"""Bound on a path's cumulative scales and on their inverses. Beyond it what a layer adds is less
than bfloat16 resolves beside the stream, or the stream beside what the layer adds."""


@dataclass(frozen=True)
class Hop:
    """One step of the path: a layer, and what its input is multiplied by.

    Attributes:
        source: Whose layer: ``base``, an expert's name, or ``merged`` for the layer that the
            recipe's rules merge.
        layer: Decoder layer of that source, from 0.
        scale: Factor of the whole hidden state before this layer, so of all that follow, too;
            above 0.

    Source:
        Akiba et al. 2025, "Evolutionary Optimization of Model Merging Recipes", arXiv:2403.13187,
        section 3.2, with one factor per hop for the matrix W.
    """

    source: str
    layer: int
    scale: float = 1.0

    __pydantic_config__ = ConfigDict(extra="forbid")


def cumulative_scales(path: Sequence[Hop]) -> tuple[float, ...]:
    """Return S_t for every hop t: the product of the scales up to and with its own."""
    return tuple(accumulate((hop.scale for hop in path), mul))


def path_data(path: Sequence[Hop]) -> list[dict[str, Any]]:
    """Return plain data; successive layers without scales are written as one half-open range."""
    runs = groupby(enumerate(path), key=_run)
    return [part for _, run in runs for part in _run_data([hop for _, hop in run])]


def path_faults(path: Sequence[Hop], experts: Collection[str], *, has_base: bool) -> list[Fault]:
    """List what is wrong with a path; a recipe without one has no faults.

    Args:
        path: The hops.
        experts: Names of the recipe's experts.
        has_base: Whether the recipe has a base.
    """
    if not path:
        return []
    sources = (*([BASE] if has_base else []), *experts, MERGED)
    found = [
        Fault(
            ("experts", name),
            f"expected another name than {name!r}, which has its own meaning in a path",
        )
        for name in (BASE, MERGED)
        if name in experts
    ]
    found += [fault for t, hop in enumerate(path) for fault in _hop_faults(t, hop, sources)]
    return found or _product_faults(path)


def _hop_faults(t: int, hop: Hop, sources: Sequence[str]) -> Iterator[Fault]:
    if hop.source not in sources:
        wanted = f"one of {', '.join(sources)}"
        yield Fault(("path", t, "source"), f"expected {wanted}, got {hop.source!r}")
    if hop.layer < 0:
        yield Fault(("path", t, "layer"), f"expected a layer from 0, got {hop.layer}")
    if not (math.isfinite(hop.scale) and hop.scale > 0):
        yield Fault(("path", t, "scale"), f"expected a finite number above 0, got {hop.scale}")


def _product_faults(path: Sequence[Hop]) -> list[Fault]:
    for t, product in enumerate(cumulative_scales(path)):
        if not 1 / LARGEST_SCALE <= product <= LARGEST_SCALE:
            text = (
                f"expected scales whose product stays within 1/{LARGEST_SCALE:g} and "
                f"{LARGEST_SCALE:g}, got {product:.3g} at hop {t}"
            )
            return [Fault(("path",), text, "bring scales nearer to 1")]
    return []


def _run(item: tuple[int, Hop]) -> tuple[object, ...]:
    """Return the same key for hops of one run: their layers grow as their positions do."""
    t, hop = item
    return (hop.source, hop.layer - t) if hop.scale == 1 else (t,)


def _run_data(run: Sequence[Hop]) -> list[dict[str, Any]]:
    first = run[0]
    if len(run) > 1:
        return [{"source": first.source, "layers": [first.layer, first.layer + len(run)]}]
    data = asdict(first)
    return [{k: v for k, v in data.items() if (k, v) != ("scale", 1.0)}]


def _expanded(content: object) -> object:
    """Write runs hop by hop; what is no run is left for the schema to judge."""
    if not isinstance(content, list | tuple):
        return content
    return tuple(hop for part in content for hop in _hops(part))


def _hops(part: object) -> list[object]:
    if not isinstance(part, Mapping) or "layers" not in part:
        return [part]
    match dict(part):
        case {"layers": [int(first), int(end)], **rest} if first < end and "layer" not in rest:
            return [{**rest, "layer": layer} for layer in range(first, end)]
    raise ValueError(
        f"expected layer: N, or layers: [first, end) with first < end, got {dict(part)}"
    )


# In YAML, ``layers: [first, end)`` in the place of ``layer`` stands for one hop per layer.
Hops = Annotated[tuple[Hop, ...], BeforeValidator(_expanded)]
