"""The seam of data-flow spaces: genes that say which layers a path visits between its ends.

Every path is ``first layer of the owner, body, last layer of the owner``. An encoding decides the
body; scales, ends and embeddings are the same for all of them (``genes``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from optuna.distributions import BaseDistribution

from evomerge.recipe.path import Hop
from evomerge.space.distributions import Value

__all__ = [
    "Encoding",
    "Label",
    "Layout",
    "PathGene",
    "Read",
    "Step",
    "block",
    "layer_groups",
    "layers_text",
    "runs",
]

Read = Callable[[str], Value]


@dataclass(frozen=True)
class PathGene:
    """One gene of a path.

    Attributes:
        distribution: Its values.
        initial: The value that, with those of the other genes, makes the initial path.
        meaning: What it does, for people.
        depth: As in ``SearchSpace.depths``; ``None`` for a gene of the whole path.
    """

    distribution: BaseDistribution
    initial: Value
    meaning: str
    depth: int | None = None


@dataclass(frozen=True)
class Label:
    """What the scale gene of some visits stands for.

    Attributes:
        meaning: Which visits, for people.
        depth: As that of a gene.
    """

    meaning: str
    depth: int | None = None


@dataclass(frozen=True)
class Step:
    """One visit to a layer, before it has a scale.

    Attributes:
        source: Whose layer.
        layer: Its index there.
        label: Names the scale gene of this visit, once per path; ``None``: the visit has none.
    """

    source: str
    layer: int
    label: str | None


@dataclass(frozen=True)
class Layout:
    """What an encoding has to work with.

    Attributes:
        sources: Whose layers it may visit, in order.
        n_layers: Layers of each.
        room: Most visits that fit between the ends.
    """

    sources: tuple[str, ...]
    n_layers: int
    room: int

    @property
    def inner(self) -> range:
        """Layers that are neither first nor last."""
        return range(1, self.n_layers - 1)


class Encoding(Protocol):
    """Genes of the body of a path. Pure; built from its options, a layout and an initial body."""

    @property
    def genes(self) -> Mapping[str, PathGene]:
        """Every gene, conditional ones included, in a fixed order."""

    @property
    def labels(self) -> Mapping[str, Label]:
        """Every label that a step can have, in a fixed order."""

    def steps(self, read: Read) -> tuple[Step, ...]:
        """Read the genes that matter, each once, and list the visits: at most ``room``."""

    def values(self, body: Sequence[Hop]) -> dict[str, Value] | None:
        """Find values of all genes that give these visits; ``None`` if there are none.

        Scales matter only where some visits have no scale gene of their own.
        """


def layer_groups(layers: range, size: int) -> tuple[range, ...]:
    """Cut a range of layers into runs of ``size``; the last one may be shorter."""
    return tuple(layers[start : start + size] for start in range(0, len(layers), size))


def layers_text(layers: range) -> str:
    """Name a run of layers for people."""
    first, last = layers[0], layers[-1]
    return f"layer {first}" if first == last else f"layers {first}-{last}"


def block(sources: Sequence[str], layers: range) -> list[tuple[str, int]]:
    """List the visits of one source after the other to the same layers."""
    return [(source, layer) for source in sources for layer in layers]


def runs(body: Sequence[Hop]) -> list[list[Hop]]:
    """Cut a path where the source changes, a layer does not follow the last, or has a scale."""
    found: list[list[Hop]] = []
    for hop in body:
        last = found[-1][-1] if found else None
        follows = last is not None and (last.source, last.layer + 1) == (hop.source, hop.layer)
        if follows and hop.scale == 1.0:
            found[-1].append(hop)
        else:
            found.append([hop])
    return found
