"""Genes of a path, and what every encoding shares: ends, owner, scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optuna import Trial
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.recipe.path import Hop
from evomerge.space.dataflow.encoding import Encoding, Label, Layout, PathGene, Read, Step
from evomerge.space.dataflow.permutation import Permutation, PermutationEncoding
from evomerge.space.dataflow.scales import guarded, unguarded
from evomerge.space.dataflow.slices import Slices, SlicesEncoding
from evomerge.space.dataflow.slots import Slots, SlotsEncoding
from evomerge.space.dataflow.spec import EncodingOptions, PathSpec, Run
from evomerge.space.dataflow.threshold import Threshold, ThresholdEncoding
from evomerge.space.distributions import Value, in_range, range_text, suggest
from evomerge.space.protocol import GeneInfo
from evomerge.space.sloped import number

__all__ = ["PathGenes", "initial_path"]

_FIRST, _LAST = "first", "last"  # labels of the ends
_SAME = 1e-9  # two scales closer than this make the same model


class PathGenes:
    """Genes to hops and back.

    Args:
        spec: A path spec without faults.
        sources: Whose layers may be visited, if the spec does not say.
        n_layers: Layers of each.
    """

    def __init__(self, spec: PathSpec, sources: tuple[str, ...], n_layers: int) -> None:
        self.owners = spec.owners(sources)
        self._n_layers, self._scale = n_layers, spec.scale
        self._max_hops = spec.hop_limit(sources, n_layers)
        layout = Layout(spec.named_sources(sources), n_layers, self._max_hops - 2)
        self.initial = initial_path(spec.initial, self.owners[0], n_layers)
        self._encoding = _build_encoding(spec.encoding, layout, self.initial[1:-1])
        self.genes: Mapping[str, PathGene] = {
            **self._owner_gene(),
            **self._encoding.genes,
            **self._scale_genes(),
        }

    def hops(self, read: Read) -> tuple[str, tuple[Hop, ...]]:
        """Read the genes that matter, each once: the owner, and the path."""
        owner, steps = self._steps(read)
        if self._scale is None:
            return owner, tuple(Hop(step.source, step.layer) for step in steps)
        names = self._scale_names(steps)
        scales = [1.0 if name is None else number(read(name)) for name in names]
        kept = guarded(scales, self._scale.limit)
        return owner, tuple(
            Hop(step.source, step.layer, scale) for step, scale in zip(steps, kept, strict=True)
        )

    def draw(self, trial: Trial, prefix: str = "") -> dict[str, Value]:
        """Draw the genes that matter in one trial, under their names after a prefix."""
        drawn: dict[str, Value] = {}

        def read(name: str) -> Value:
            value = suggest(trial, f"{prefix}{name}", self.genes[name].distribution)
            return drawn.setdefault(f"{prefix}{name}", value)

        self.hops(read)
        return drawn

    def depths(self, prefix: str = "") -> dict[str, int]:
        """Say how deep genes sit, under their names after a prefix; see ``SearchSpace.depths``."""
        found = {f"{prefix}{name}": gene.depth for name, gene in self.genes.items()}
        return {name: depth for name, depth in found.items() if depth is not None}

    def describe(self, prefix: str = "") -> list[GeneInfo]:
        """List the genes for people, under their names after a prefix."""
        return [
            GeneInfo(f"{prefix}{name}", range_text(gene.distribution), gene.initial, gene.meaning)
            for name, gene in self.genes.items()
        ]

    def values(self, owner: str, path: Sequence[Hop]) -> dict[str, Value] | None:
        """Find the genes that matter for an owner and a path; ``None`` if there are none.

        Args:
            owner: Who gives what is outside the layers.
            path: Hops; empty stands for the owner's layers in order.
        """
        path = path or initial_path((), owner, self._n_layers)
        bare = self._without_guard(path)
        body = None if bare is None else self._encoding.values(bare[1:-1])
        if owner not in self.owners or body is None or bare is None:
            return None
        found: dict[str, Value] = {}
        structure = {"owner": owner, **body}
        _, steps = self._steps(lambda name: found.setdefault(name, structure[name]))
        if [(s.source, s.layer) for s in steps] != [(h.source, h.layer) for h in path]:
            return None
        names = self._scale_names(steps) if self._scale else [None] * len(steps)
        for name, hop in zip(names, bare, strict=True):
            if name is not None:
                found[name] = self._snapped(hop.scale)
            elif abs(hop.scale - 1.0) > _SAME:
                return None
        fits = in_range(found, {name: self.genes[name].distribution for name in found})
        return found if fits else None

    def _steps(self, read: Read) -> tuple[str, tuple[Step, ...]]:
        owner = str(read("owner")) if len(self.owners) > 1 else self.owners[0]
        body = self._encoding.steps(read)
        first = Step(owner, 0, _FIRST)
        if self._n_layers == 1:
            return owner, (first, *body)
        return owner, (first, *body, Step(owner, self._n_layers - 1, _LAST))

    def _scale_names(self, steps: Sequence[Step]) -> list[str | None]:
        """Name the scale gene of every hop."""
        assert self._scale is not None, "asked only where there are scales"
        if self._scale.per == "hop":
            return [f"scale.{position}" for position in range(len(steps))]
        return [None if step.label is None else f"scale.{step.label}" for step in steps]

    def _without_guard(self, path: Sequence[Hop]) -> tuple[Hop, ...] | None:
        if self._scale is None:
            return tuple(path)
        scales = unguarded([hop.scale for hop in path], self._scale.limit)
        if scales is None:
            return None
        return tuple(replace(hop, scale=s) for hop, s in zip(path, scales, strict=True))

    def _snapped(self, scale: float) -> float:
        """Move a scale that is outside the range by a rounding error to its edge."""
        assert self._scale is not None, "asked only where there are scales"
        low, high = self._scale.range
        return min(max(scale, low), high) if low - _SAME <= scale <= high + _SAME else scale

    def _owner_gene(self) -> dict[str, PathGene]:
        if len(self.owners) == 1:
            return {}
        meaning = "whose embeddings, first and last layer, norm and head"
        return {"owner": PathGene(CategoricalDistribution(self.owners), self.owners[0], meaning)}

    def _scale_genes(self) -> dict[str, PathGene]:
        if self._scale is None:
            return {}
        if self._scale.per == "hop":
            labels = {str(i): Label(f"hop {i + 1}", depth=i) for i in range(self._max_hops)}
        else:
            ends = {_FIRST: Label("the first layer")}
            if self._n_layers > 1:
                ends[_LAST] = Label("the last layer")
            labels = {**ends, **self._encoding.labels}
        distribution = FloatDistribution(*self._scale.range, log=True)
        return {
            f"scale.{name}": PathGene(
                distribution, 1.0, f"input scale of {label.meaning}", label.depth
            )
            for name, label in labels.items()
        }


def initial_path(runs: tuple[Run, ...], owner: str, n_layers: int) -> tuple[Hop, ...]:
    """List the hops of runs that are given in shares of the depth; of no runs, the owner's."""
    return tuple(
        Hop(run.source or owner, layer)
        for run in runs or (Run((0.0, 1.0)),)
        for layer in range(round(run.layers[0] * n_layers), round(run.layers[1] * n_layers))
    )


def _build_encoding(options: EncodingOptions, layout: Layout, initial: Sequence[Hop]) -> Encoding:
    """Build an encoding.

    Args:
        options: Which, and its own options.
        layout: What it works with.
        initial: The body that its initial values give, if it can express it.
    """
    match options:
        case Threshold():
            return ThresholdEncoding(options, layout, initial)
        case Slots():
            return SlotsEncoding(options, layout, initial)
        case Permutation():
            return PermutationEncoding(options, layout, initial)
        case Slices():
            return SlicesEncoding(options, layout, initial)
