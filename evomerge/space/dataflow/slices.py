"""Slice encoding: a list of runs of layers, as in frankenmerges and depth up-scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import ConfigDict, Field

from evomerge.recipe.path import Hop
from evomerge.space.dataflow.encoding import Label, Layout, PathGene, Read, Step, runs
from evomerge.space.distributions import Value

__all__ = ["Slices", "SlicesEncoding"]


@dataclass(frozen=True)
class Slices:
    """Options.

    Attributes:
        slices: The most runs of layers in a path.
        longest: Layers of the longest run; absent: all of a model.
    """

    name: Literal["slices"] = "slices"
    slices: Annotated[int, Field(ge=1, le=1000)] = 4
    longest: Annotated[int, Field(ge=1, le=10_000)] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def longest_step(self, sources: tuple[str, ...]) -> int:
        """Count the visits that must fit at once: slices are cut instead."""
        return 1


class SlicesEncoding:
    """Per slice a length, a first layer and a source; a slice of length 0 has neither.

    A slice ends early at the last layer of its source, and where the path is full, so lengths
    beyond that mean the same: a range that depends on another gene is nothing samplers know. So do
    two slices that follow each other and one of their joint length. The scale of a slice is that
    of its first layer. Implements ``Encoding``.
    """

    def __init__(self, options: Slices, layout: Layout, initial: Sequence[Hop]) -> None:
        self._layout, self._n = layout, options.slices
        self._longest = min(options.longest or layout.n_layers, layout.n_layers)
        start = self.values(initial) or {}
        self.genes = {
            name: PathGene(distribution, start.get(name, neutral), meaning, depth=i)
            for i in range(self._n)
            for name, distribution, neutral, meaning in self._genes_of(i)
        }
        self.labels = {
            str(i): Label(f"first layer of slice {i + 1}", depth=i) for i in range(self._n)
        }

    def steps(self, read: Read) -> tuple[Step, ...]:
        """See ``Encoding``."""
        found: list[Step] = []
        for i in range(self._n):
            room = self._layout.room - len(found)
            if not room:
                break
            length = int(read(_length(i)))
            if length == 0:
                continue
            first, source = int(read(_first(i))), str(read(_source(i)))
            layers = range(self._layout.n_layers)[first : first + min(length, room)]
            found += [Step(source, layer, str(i) if layer == first else None) for layer in layers]
        return tuple(found)

    def values(self, body: Sequence[Hop]) -> dict[str, Value] | None:
        """See ``Encoding``."""
        pieces = [
            run[at : at + self._longest]
            for run in runs(body)
            for at in range(0, len(run), self._longest)
        ]
        if len(pieces) > self._n or any(h.source not in self._layout.sources for h in body):
            return None
        values: dict[str, Value] = {_length(i): 0 for i in range(self._n)}
        for i, piece in enumerate(pieces):
            values |= {_length(i): len(piece), _first(i): piece[0].layer}
            values[_source(i)] = piece[0].source
        return values

    def _genes_of(self, i: int) -> Iterator[tuple[str, BaseDistribution, Value, str]]:
        which, sources = f"slice {i + 1}", self._layout.sources
        yield _length(i), IntDistribution(0, self._longest), 0, f"{which}: number of layers"
        last = self._layout.n_layers - 1
        yield _first(i), IntDistribution(0, last), 0, f"{which}: its first layer"
        yield _source(i), CategoricalDistribution(sources), sources[0], f"{which}: whose layers"


def _length(i: int) -> str:
    return f"length.{i}"


def _first(i: int) -> str:
    return f"first.{i}"


def _source(i: int) -> str:
    return f"source.{i}"
