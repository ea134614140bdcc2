"""Permutation encoding: per slot, which sources are in, and in what order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Literal

from optuna.distributions import CategoricalDistribution
from pydantic import ConfigDict, Field

from evomerge.recipe.path import Hop
from evomerge.space.dataflow.encoding import (
    Label,
    Layout,
    PathGene,
    Read,
    Step,
    block,
    layer_groups,
    layers_text,
)
from evomerge.space.distributions import Value

__all__ = ["Permutation", "PermutationEncoding"]

_ON, _OFF = "on", "off"


@dataclass(frozen=True)
class Permutation:
    """Options.

    Attributes:
        layers_per_slot: Neighbouring layers that are visited together.
    """

    name: Literal["permutation"] = "permutation"
    layers_per_slot: Annotated[int, Field(ge=1, le=10_000)] = 1

    __pydantic_config__ = ConfigDict(extra="forbid")

    def longest_step(self, sources: tuple[str, ...]) -> int:
        """Count the visits of a slot with all sources."""
        return len(sources) * self.layers_per_slot


class PermutationEncoding:
    """An include gene per slot and source, and an order gene that matters where several are in.

    The order is a permutation of the sources that are in, with a gene of its own for each number
    of them, so that no two settings mean the same. A slot is inactive where all sources might not
    fit any more. Implements ``Encoding``.

    Source:
        Su and Geiping 2025, "Fine, I'll Merge It Myself", arXiv:2502.04030: depth-wise integration.
    """

    def __init__(self, options: Permutation, layout: Layout, initial: Sequence[Hop]) -> None:
        self._slots = layer_groups(layout.inner, options.layers_per_slot)
        self._sources, self._room = layout.sources, layout.room
        start = self.values(initial) or {}
        self.genes = {
            name: PathGene(
                CategoricalDistribution(choices), start.get(name, choices[0]), meaning, depth=i
            )
            for i in range(len(self._slots))
            for name, (choices, meaning) in self._genes_of(i).items()
        }
        self.labels = {
            f"{layer}.{source}": Label(f"{source}'s layer {layer}", depth=layer)
            for layers in self._slots
            for source in self._sources
            for layer in layers
        }

    def steps(self, read: Read) -> tuple[Step, ...]:
        """See ``Encoding``."""
        found: list[Step] = []
        for i, layers in enumerate(self._slots):
            if len(found) + len(self._sources) * len(layers) > self._room:
                break
            included = [s for s in self._sources if read(_include(i, s)) == _ON]
            if len(included) > 1:
                included = _ordered(included, str(read(_order(i, len(included)))))
            found += [Step(s, layer, f"{layer}.{s}") for s, layer in block(included, layers)]
        return tuple(found)

    def values(self, body: Sequence[Hop]) -> dict[str, Value] | None:
        """See ``Encoding``."""
        places = [(hop.source, hop.layer) for hop in body]
        values: dict[str, Value] = {}
        for i, layers in enumerate(self._slots):
            if len(body) - len(places) + len(self._sources) * len(layers) > self._room:
                break
            here = [place for place in places if place[1] in layers]
            visited = list(dict.fromkeys(source for source, _ in here))
            if block(visited, layers) != here or places[: len(here)] != here:
                return None
            if not set(visited) <= set(self._sources):
                return None
            values |= {_include(i, s): _ON if s in visited else _OFF for s in self._sources}
            if len(visited) > 1:
                listed = [s for s in self._sources if s in visited]
                values[_order(i, len(visited))] = _order_text(listed.index(s) for s in visited)
            places = places[len(here) :]
        return None if places else values

    def _genes_of(self, slot: int) -> dict[str, tuple[tuple[str, ...], str]]:
        where = layers_text(self._slots[slot])
        found: dict[str, tuple[tuple[str, ...], str]] = {
            _include(slot, source): ((_OFF, _ON), f"{where}: visit {source}'s")
            for source in self._sources
        }
        for n in range(2, len(self._sources) + 1):
            orders = tuple(map(_order_text, permutations(range(n))))
            found[_order(slot, n)] = (orders, f"{where}: order of the sources, if {n} are in")
        return found


def _include(slot: int, source: str) -> str:
    return f"include.{slot}.{source}"


def _order(slot: int, n: int) -> str:
    return f"order.{slot}.{n}"


def _order_text(order: Iterable[int]) -> str:
    return ">".join(str(position + 1) for position in order)


def _ordered(included: Sequence[str], order: str) -> list[str]:
    return [included[int(position) - 1] for position in order.split(">")]
