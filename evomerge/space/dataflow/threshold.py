"""Threshold encoding: an indicator per slot; the slots repeat all layers of all sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from optuna.distributions import FloatDistribution
from pydantic import ConfigDict, Field

from evomerge.recipe.path import Hop
from evomerge.space.dataflow.encoding import Label, Layout, PathGene, Read, Step
from evomerge.space.distributions import Value

__all__ = ["Threshold", "ThresholdEncoding"]

# Of an indicator in [-1, 1]: with CMA-ES's first spread of 1/6 of the range, 93 of 100 draws keep
# the initial side.
_LIKELY = 0.5


@dataclass(frozen=True)
class Threshold:
    """Options.

    Attributes:
        repeats: How often all layers of all sources are laid out in a row.
    """

    name: Literal["threshold"] = "threshold"
    repeats: Annotated[int, Field(ge=1, le=100)] = 3

    __pydantic_config__ = ConfigDict(extra="forbid")

    def longest_step(self, sources: tuple[str, ...]) -> int:
        """Count the visits that must fit at once: weaker ones give way instead."""
        return 1


class ThresholdEncoding:
    """The layers of all sources in a row, ``repeats`` times; a slot is visited if its gene is > 0.

    Where more slots are on than there is room for, the largest indicators stay. Only the signs (and
    then the order) of the indicators count, so different params can give one path: that is the
    nature of this encoding. Implements ``Encoding``.

    Source:
        Akiba et al. 2024, "Evolutionary Optimization of Model Merging Recipes", arXiv:2403.13187,
        section 3.2: T = M x r indicators.
    """

    def __init__(self, options: Threshold, layout: Layout, initial: Sequence[Hop]) -> None:
        self._room = layout.room
        self._slots = {
            f"{repeat}.{source}.{layer}": (source, layer)
            for repeat in range(options.repeats)
            for source in layout.sources
            for layer in range(layout.n_layers)
        }
        start = self.values(initial) or {}
        self.genes = {
            _gene(slot): PathGene(
                FloatDistribution(-1.0, 1.0),
                start.get(_gene(slot), -_LIKELY),
                f"round {_repeat(slot) + 1}: visit {source}'s layer {layer} if positive",
                depth=_repeat(slot),
            )
            for slot, (source, layer) in self._slots.items()
        }
        self.labels = {
            slot: Label(f"round {_repeat(slot) + 1}, {source}'s layer {layer}", depth=_repeat(slot))
            for slot, (source, layer) in self._slots.items()
        }

    def steps(self, read: Read) -> tuple[Step, ...]:
        """See ``Encoding``."""
        indicators = {slot: float(read(_gene(slot))) for slot in self._slots}
        on = [slot for slot, value in indicators.items() if value > 0]
        strongest = set(sorted(on, key=indicators.__getitem__, reverse=True)[: self._room])
        return tuple(Step(*self._slots[slot], slot) for slot in on if slot in strongest)

    def values(self, body: Sequence[Hop]) -> dict[str, Value] | None:
        """See ``Encoding``; takes the first slots that fit, of many."""
        values: dict[str, Value] = dict.fromkeys(map(_gene, self._slots), -_LIKELY)
        slots = iter(self._slots.items())
        for hop in body:
            fits = (slot for slot, place in slots if place == (hop.source, hop.layer))
            slot = next(fits, None)
            if slot is None:
                return None
            values[_gene(slot)] = _LIKELY
        return values


def _gene(slot: str) -> str:
    return f"include.{slot}"


def _repeat(slot: str) -> int:
    return int(slot.partition(".")[0])
