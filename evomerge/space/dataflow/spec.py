"""The YAML keys of data-flow and hybrid spaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from evomerge.space.dataflow.permutation import Permutation
from evomerge.space.dataflow.slices import Slices
from evomerge.space.dataflow.slots import Slots
from evomerge.space.dataflow.threshold import Threshold
from evomerge.space.spec import ParameterSpec

__all__ = ["EncodingOptions", "HybridSpec", "PathSpec", "Run", "ScaleSpec"]


def _by_name(value: object) -> object:
    """Read a bare name as ``{name: ...}``."""
    return {"name": value} if isinstance(value, str) else value


def _as_tuple(value: object) -> object:
    return [value] if isinstance(value, str) else value


EncodingOptions = Annotated[Threshold | Slots | Permutation | Slices, Field(discriminator="name")]


@dataclass(frozen=True)
class ScaleSpec:
    """How the inputs of hops are scaled.

    Attributes:
        range: Lowest and highest scale, positive, with 1 between them; searched logarithmically.
        per: ``slot``: a scale belongs to a place of the encoding and is active where that is
            visited; ``hop``: to the position in the path.
        limit: The product of the scales up to any hop stays between 1/limit and limit, as folding
            divides by it. Products beyond the square root of that are compressed, one-to-one.
    """

    range: tuple[float, float] = (0.5, 2.0)
    per: Literal["slot", "hop"] = "slot"
    limit: float = 16.0

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Run:
    """Neighbouring layers of one source.

    Attributes:
        layers: First and last edge as shares of the depth: [0, 0.75] is the first three quarters.
        source: Whose; absent: the (first) owner's.
    """

    layers: tuple[float, float]
    source: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class PathSpec:
    """What varies about a path.

    Attributes:
        kind: ``dataflow``.
        encoding: How genes say which layers are visited: a name, or ``{name: ..., options}``.
        sources: Whose layers may be visited: expert names, ``base``, in a hybrid space ``merged``.
            Absent: all experts, in a hybrid space ``merged`` before them.
        owner: Who gives embeddings, first and last layer, norm and head; several: a gene chooses.
            Absent: the first source.
        max_hops: Most layers in a path, first and last included; absent: twice those of a model.
        scale: How inputs are scaled; ``null``: not at all.
        initial: Where the search starts; absent: the first owner as it is.
    """

    kind: Literal["dataflow"] = "dataflow"
    encoding: Annotated[EncodingOptions, BeforeValidator(_by_name)] = field(default_factory=Slots)
    sources: tuple[str, ...] = ()
    owner: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    max_hops: Annotated[int, Field(le=10_000)] | None = None
    scale: ScaleSpec | None = ScaleSpec()
    initial: tuple[Run, ...] = ()

    __pydantic_config__ = ConfigDict(extra="forbid")

    def named_sources(self, default: tuple[str, ...]) -> tuple[str, ...]:
        """The sources, those given or the default."""
        return self.sources or default

    def owners(self, default: tuple[str, ...]) -> tuple[str, ...]:
        """Everyone who may own the ends."""
        return self.owner or self.named_sources(default)[:1]

    def hop_limit(self, default: tuple[str, ...], n_layers: int) -> int:
        """Most layers in a path, given or by default."""
        return self.max_hops or max(2 * n_layers, self.least_limit(default))

    def least_limit(self, default: tuple[str, ...]) -> int:
        """Hops that a path must have room for, lest some genes could never matter."""
        return 2 + self.encoding.longest_step(self.named_sources(default))


@dataclass(frozen=True)
class HybridSpec:
    """A hybrid space.

    Attributes:
        kind: ``hybrid``.
        merge: The parameter space of the merged layers and of everything outside layers.
        path: The path through them and through the sources as they are.
    """

    merge: ParameterSpec
    path: PathSpec
    kind: Literal["hybrid"] = "hybrid"

    __pydantic_config__ = ConfigDict(extra="forbid")
