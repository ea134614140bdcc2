"""Paths in a live model: its layers run in another order, repeated or left out, without copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evomerge.merging.feeding import ReadTensor
from evomerge.merging.layers import SourceLayers
from evomerge.merging.sources import Sources
from evomerge.merging.visits import Visit
from evomerge.models.branches import branches_of
from evomerge.models.depth import layer_settings
from evomerge.models.structure import decoder_layers
from evomerge.recipe.path import MERGED, Hop, cumulative_scales

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Wiring"]


class Wiring:
    """Replaces the list of layers inside a model, and what its config says about them.

    Visits stay for the next paths, too, as long as their layers do.

    Args:
        model: As loaded; stays the same object.
        sources: Its models.
        tensor: Reads their tensors.
    """

    def __init__(self, model: PreTrainedModel, sources: Sources, tensor: ReadTensor) -> None:
        path, _ = decoder_layers(model)
        parent, _, self._name = path.rpartition(".")
        self._parent = model.get_submodule(parent)
        self._plain = getattr(self._parent, self._name)
        self._numbered = [_numbered(layer) for layer in self._plain]
        self._config: Any = model.config.get_text_config()
        self._settings = layer_settings(model.config)
        self._original = {name: getattr(self._config, name) for name in self._settings.along(())}
        self._source_layers = SourceLayers(model, sources.names, tensor)
        self._branches = branches_of(sources.anchor.config.get("model_type"))
        self._visits: dict[tuple[str, int], list[Visit]] = {}
        self._path: tuple[Hop, ...] = ()
        self._visited: list[Visit] = []  # along the path

    @contextmanager
    def scale_leaves(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Lend the cumulative scale of every hop as a tensor that torch differentiates along.

        Yields:
            One per hop of the connected path, 0-dimensional; none if the family has no scales.
        """
        scales = cumulative_scales(self._path)
        visits = self._visited if self._branches else []
        try:
            yield tuple(visit.scale_leaf() for visit in visits)
        finally:
            for position, (visit, scale) in enumerate(zip(visits, scales, strict=False)):
                visit.at(position, scale)

    def connect(self, path: tuple[Hop, ...]) -> None:
        """Make the model run a path, from its next call on.

        Args:
            path: One that ``PathRules`` allow; empty for the model's own layers.
        """
        if path == self._path:
            return
        for place in self._source_layers.forget_others({(hop.source, hop.layer) for hop in path}):
            self._visits.pop(place, None)
        layers, settings = self._plain, self._original
        self._visited = []
        if path:
            layers = nn.ModuleList(self._hops(path))
            settings = self._settings.along([hop.layer for hop in path])
        setattr(self._parent, self._name, layers)
        for name, value in settings.items():
            setattr(self._config, name, value)
        self._path = path

    def _hops(self, path: Sequence[Hop]) -> list[nn.Module]:
        visits = list(self._visits_along(path))  # all that can fail, before any is moved
        self._visited = visits
        placed = enumerate(zip(visits, cumulative_scales(path), strict=True))
        return [visit.at(position, scale) for position, (visit, scale) in placed]

    def _visits_along(self, path: Sequence[Hop]) -> Iterator[Visit]:
        """Yield a visit per hop, the nth to the same layer always the same one."""
        times: Counter[tuple[str, int]] = Counter()
        for hop in path:
            place = (hop.source, hop.layer)
            visits = self._visits.setdefault(place, [])
            if times[place] == len(visits):
                visits.append(Visit(self._layer(hop), self._numbered[hop.layer], self._branches))
            yield visits[times[place]]
            times[place] += 1

    def _layer(self, hop: Hop) -> nn.Module:
        if hop.source == MERGED:
            layer: nn.Module = self._plain[hop.layer]
            return layer
        return self._source_layers.layer(hop.source, hop.layer)


def _numbered(layer: nn.Module) -> tuple[str, ...]:
    """Find the modules that know their position."""
    return tuple(path for path, module in layer.named_modules() if "layer_idx" in vars(module))
