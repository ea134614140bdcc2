"""Slot encoding: for each layer in turn, which sources are visited there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
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

__all__ = ["SKIP", "Slots", "SlotsEncoding", "sources_of"]

SKIP = "skip"


@dataclass(frozen=True)
class Slots:
    """Options.

    Attributes:
        layers_per_slot: Neighbouring layers that are visited together.
        choices: What a slot can hold: ``skip``, a source, or several joined by ``>`` that are
            visited one after the other. Absent: every source, every pair in their order, ``skip``.
        pairs: Whether pairs are among the choices if none are given; each slot has fewer without.
    """

    name: Literal["slots"] = "slots"
    layers_per_slot: Annotated[int, Field(ge=1, le=10_000)] = 1
    choices: tuple[str, ...] = ()
    pairs: bool = True

    __pydantic_config__ = ConfigDict(extra="forbid")

    def all_choices(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """List the choices, those given or those that the sources imply."""
        pairs = [">".join(pair) for pair in combinations(sources, 2)] if self.pairs else []
        return self.choices or (*sources, *pairs, SKIP)

    def longest_step(self, sources: tuple[str, ...]) -> int:
        """Count the visits of a slot's longest choice."""
        longest = max(len(sources_of(choice)) for choice in self.all_choices(sources))
        return longest * self.layers_per_slot


class SlotsEncoding:
    """One choice per slot of inner layers; the layers of a path never go back.

    A slot is inactive where its longest choice might not fit any more. Implements ``Encoding``.
    """

    def __init__(self, options: Slots, layout: Layout, initial: Sequence[Hop]) -> None:
        self._slots = layer_groups(layout.inner, options.layers_per_slot)
        self._choices = {text: sources_of(text) for text in options.all_choices(layout.sources)}
        self._widest = max(map(len, self._choices.values()))
        self._room = layout.room
        start = self.values(initial) or {}
        choices = CategoricalDistribution(tuple(self._choices))
        self.genes = {
            _gene(i): PathGene(
                choices,
                start.get(_gene(i), next(iter(self._choices))),
                f"{layers_text(layers)}: of whom, in this order",
                depth=i,
            )
            for i, layers in enumerate(self._slots)
        }
        self.labels = {
            f"{layer}.{visit}": Label(f"visit {visit + 1} to layer {layer}", depth=layer)
            for layers in self._slots
            for visit in range(self._widest)
            for layer in layers
        }

    def steps(self, read: Read) -> tuple[Step, ...]:
        """See ``Encoding``."""
        found: list[Step] = []
        for i, layers in enumerate(self._slots):
            if len(found) + self._widest * len(layers) > self._room:
                break
            sources = self._choices[str(read(_gene(i)))]
            found += [
                Step(source, layer, f"{layer}.{visit}")
                for visit, source in enumerate(sources)
                for layer in layers
            ]
        return tuple(found)

    def values(self, body: Sequence[Hop]) -> dict[str, Value] | None:
        """See ``Encoding``."""
        places = [(hop.source, hop.layer) for hop in body]
        values: dict[str, Value] = {}
        for i, layers in enumerate(self._slots):
            if len(body) - len(places) + self._widest * len(layers) > self._room:
                break
            here = [place for place in places if place[1] in layers]
            fitting = [t for t, sources in self._choices.items() if block(sources, layers) == here]
            if not fitting or places[: len(here)] != here:
                return None
            values[_gene(i)] = fitting[0]
            places = places[len(here) :]
        return None if places else values


def sources_of(choice: str) -> tuple[str, ...]:
    """Read a choice: the sources it visits, in order."""
    return () if choice == SKIP else tuple(part.strip() for part in choice.split(">"))


def _gene(slot: int) -> str:
    return f"slot.{slot}"
