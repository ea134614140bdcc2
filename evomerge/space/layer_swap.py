"""Layer swapping: every layer comes from one model; which one is what the search decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import ConfigDict

from evomerge.errors import Fault, SpaceError
from evomerge.recipe.recipe import Recipe
from evomerge.space.distributions import in_range, range_text, suggest
from evomerge.space.layer_sources import BASE, LayerShares, layer_rows, layer_rules, same_rows
from evomerge.space.protocol import GeneInfo, ModelSet, Params, SearchSpace

__all__ = ["LayerChoice", "LayerSwapSpec", "RegionSwap", "layer_swap_space", "swap_faults"]

_REGIONS = ("bottom", "middle", "top")
_SIZES = {
    "bottom": "number of first layers, embeddings included, from the bottom source",
    "top": "number of last layers, final norm and head included, from the top source",
    "transition": "number of layers over which a region fades into the middle",
}


@dataclass(frozen=True)
class LayerSwapSpec:
    """A layer-swapping space as written in YAML.

    Attributes:
        sources: Experts, or ``base``, that layers may come from; absent: every expert.
        per_layer: Whether every layer chooses its source freely, instead of three regions.
        bottom: Smallest and largest number of layers in the bottom region; absent: 1 to two
            fifths of the layers.
        top: The same for the top region.
        transition: The same for the layers over which regions blend; absent: from 0 to whatever
            leaves a layer to the middle.

    Source:
        Bandarkar et al. 2024, "Layer Swapping for Zero-Shot Cross-Lingual Transfer in Large
        Language Models", arXiv:2410.01335.
    """

    kind: Literal["layer_swap"] = "layer_swap"
    sources: tuple[str, ...] | None = None
    per_layer: bool = False
    bottom: tuple[int, int] | None = None
    top: tuple[int, int] | None = None
    transition: tuple[int, int] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def sizes(self, n_layers: int) -> dict[str, tuple[int, int]]:
        """Return the ranges of ``bottom``, ``top`` and ``transition``."""
        most = max(1, 2 * (n_layers - 1) // 5)
        bottom, top = self.bottom or (1, most), self.top or (1, most)
        room = max(0, (n_layers - 1 - bottom[1] - top[1]) // 2)
        return {"bottom": bottom, "top": top, "transition": self.transition or (0, room)}


def layer_swap_space(spec: LayerSwapSpec, models: ModelSet) -> SearchSpace:
    """Build the space of a spec.

    Raises:
        SpaceError: Every fault.
    """
    if faults := swap_faults(spec, models):
        raise SpaceError(*faults)
    sources = tuple(models.experts) if spec.sources is None else spec.sources
    if spec.per_layer:
        return LayerChoice(sources, models)
    return RegionSwap(sources, spec.sizes(models.n_layers), models)


class LayerChoice:
    """Every layer from the source it chooses; implements ``SearchSpace``.

    Args:
        sources: Experts, or ``base``.
        models: What is mixed.
    """

    def __init__(self, sources: tuple[str, ...], models: ModelSet) -> None:
        self._models = models
        self.statistics: tuple[str, ...] = ()  # of linear merges
        choices = CategoricalDistribution(sources)
        self.distributions = {f"source.{layer}": choices for layer in range(models.n_layers)}
        self.defaults: Params = dict.fromkeys(self.distributions, sources[0])
        self.depths = {name: layer for layer, name in enumerate(self.distributions)}

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``; every gene is active."""
        return {name: suggest(trial, name, d) for name, d in self.distributions.items()}

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        rows = [{str(params[name]): 1.0} for name in self.distributions]
        return self._models.recipe(layer_rules(rows, self._models))

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``."""
        rows = layer_rows(recipe, self._models)
        if rows is None or not all(map(_owner, rows)):
            return None
        params = {f"source.{layer}": _owner(row) for layer, row in enumerate(rows)}
        return params if in_range(params, self.distributions) else None

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        return [
            GeneInfo(
                name, range_text(d), self.defaults[name], f"layer {layer}: where it comes from"
            )
            for layer, (name, d) in enumerate(self.distributions.items())
        ]


class RegionSwap:
    """Bottom, middle and top from a source each; implements ``SearchSpace``.

    A region of the middle's source is no region: its size is then inactive.

    Args:
        sources: Experts, or ``base``.
        sizes: Ranges of ``bottom``, ``top`` and ``transition``; together they leave a layer.
        models: What is mixed.
    """

    def __init__(
        self, sources: tuple[str, ...], sizes: Mapping[str, tuple[int, int]], models: ModelSet
    ) -> None:
        self._models = models
        self.statistics: tuple[str, ...] = ()  # of linear merges
        self.depths: Mapping[str, int] = {}  # a region may reach anywhere
        self._least = {name: low for name, (low, _) in sizes.items()}
        self._sources = sources
        free = {name: size for name, size in sizes.items() if size[0] < size[1]}
        self.distributions: dict[str, BaseDistribution] = {
            **{f"source.{region}": CategoricalDistribution(sources) for region in _REGIONS},
            **{name: IntDistribution(low, high) for name, (low, high) in free.items()},
        }
        outer, inner = sources[1], sources[0]
        self.defaults: Params = {
            "source.bottom": outer,
            "source.middle": inner,
            "source.top": outer,
            **{name: (low + high) // 2 for name, (low, high) in free.items()},
        }

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``."""
        params: dict[str, float | int | str] = {}
        for name, distribution in self.distributions.items():
            if name.startswith("source.") or _matters(name, params):
                params[name] = suggest(trial, name, distribution)
        return params

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        return self._models.recipe(layer_rules(list(self._rows(params)), self._models))

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``."""
        rows = layer_rows(recipe, self._models)
        if rows is None:
            return None
        for middle in self._sources:
            params = self._read(rows, middle)
            if in_range(params, self.distributions) and same_rows(rows, [*self._rows(params)]):
                return params
        return None

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        return [
            GeneInfo(name, range_text(d), self.defaults[name], _meaning(name))
            for name, d in self.distributions.items()
        ]

    def _rows(self, params: Params) -> Iterator[LayerShares]:
        """Mix every layer: a region's share is 1 inside, then falls to 0 over the transition."""
        n, fade = self._models.n_layers, self._size("transition", params)
        for layer in range(n):
            row = {str(params["source.middle"]): 1.0}
            for region, position in (("bottom", layer), ("top", n - 1 - layer)):
                if _matters(region, params):
                    beyond = position - self._size(region, params) + 1
                    share = min(max(1.0 - beyond / (fade + 1), 0.0), 1.0)
                    row = {source: own * (1.0 - share) for source, own in row.items()}
                    source = str(params[f"source.{region}"])
                    row[source] = row.get(source, 0.0) + share
            yield {source: share for source, share in row.items() if share}

    def _size(self, name: str, params: Params) -> int:
        return int(params.get(name, self._least[name]))

    def _read(self, rows: Sequence[LayerShares], middle: str) -> Params:
        """Read genes off rows, taking the middle's source for known."""
        ends = {"bottom": rows, "top": rows[::-1]}
        params: dict[str, float | int | str] = {"source.middle": middle}
        params |= {f"source.{region}": _owner(inward[0]) for region, inward in ends.items()}
        for region, inward in ends.items():
            if _matters(region, params):
                owners = [_owner(row) for row in inward]
                params[region] = size = _run(owners, owners[0])
                params["transition"] = _run(owners[size:], "")
        return {name: params[name] for name in self.distributions if name in params}


def _run(owners: Sequence[str], owner: str) -> int:
    """Count how often the owner comes before the first other one."""
    return len(list(takewhile(owner.__eq__, owners)))


def _owner(row: LayerShares) -> str:
    """Name the source that has all of a layer; empty if there is none."""
    return next((source for source, share in row.items() if same_rows([row], [{source: 1.0}])), "")


def _matters(size: str, params: Params) -> bool:
    """Tell whether a size has an effect: whether its region differs from the middle."""
    regions = ("bottom", "top") if size == "transition" else (size,)
    return any(params[f"source.{r}"] != params["source.middle"] for r in regions)


def _meaning(name: str) -> str:
    return _SIZES.get(name) or f"where the {name.partition('.')[2]} layers come from"


def swap_faults(spec: LayerSwapSpec, models: ModelSet) -> list[Fault]:
    """List every fault of a layer-swapping space; empty if all is well."""
    return [*_source_faults(spec, models), *_size_faults(spec, models)]


def _source_faults(spec: LayerSwapSpec, models: ModelSet) -> Iterator[Fault]:
    known = (BASE, *models.experts)
    sources = tuple(models.experts) if spec.sources is None else spec.sources
    for i, name in enumerate(sources):
        if name not in known:
            yield Fault(("sources", i), f"expected {' or '.join(known)}, got {name!r}")
    if len(set(sources)) < 2 or len(set(sources)) < len(sources):
        text = f"expected at least two different ones, got {', '.join(sources) or 'none'}"
        yield Fault(("sources",), text)


def _size_faults(spec: LayerSwapSpec, models: ModelSet) -> Iterator[Fault]:
    given = [name for name in _SIZES if getattr(spec, name) is not None]
    if spec.per_layer:
        text = "every layer chooses for itself"
        yield from (Fault((name,), text, "leave it out") for name in given)
        return
    sizes, least = spec.sizes(models.n_layers), {"bottom": 1, "top": 1, "transition": 0}
    for name in given:
        low, high = sizes[name]
        if not least[name] <= low <= high:
            wanted = f"[fewest, most] layers with {least[name]} <= fewest <= most"
            yield Fault((name,), f"expected {wanted}, got [{low}, {high}]")
    most = sum(high * (2 if name == "transition" else 1) for name, (_, high) in sizes.items())
    if 0 < models.n_layers <= most:
        text = (
            "expected bottom + top + 2 * transition below "
            f"{models.n_layers} (the models' layers) at their largest, got {most}"
        )
        yield Fault((given[-1],) if given else (), text)
