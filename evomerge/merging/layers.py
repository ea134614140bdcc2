"""Layers of the raw sources as live modules, for paths that run them beside merged ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from evomerge.merging.feeding import ReadTensor
from evomerge.models.parameters import places
from evomerge.models.structure import decoder_layers
from evomerge.models.twins import twin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["SourceLayers"]


class SourceLayers:
    """The decoder layers of base and experts, made when first asked for, kept as long as they run.

    Tensors that are read as the live model holds them, in dtype and form, on its device, are the
    parameters themselves: mapped from files that all processes of a machine share, or resident with
    what is merged. Others are converted: memory of the layers that run.

    Args:
        model: The live model; its layers are those of the anchor.
        names: Of the sources' tensors.
        tensor: Reads them.
    """

    def __init__(self, model: PreTrainedModel, names: Iterable[str], tensor: ReadTensor) -> None:
        self._tensor = tensor
        self._path, _ = decoder_layers(model)
        self._live = list(model.get_submodule(self._path).children())
        self._views: dict[str, dict[str, torch.Tensor]] = {}  # by parameter, by checkpoint name
        for name, place in places(model, names).items():
            self._views.setdefault(place.parameter, {})[name] = place.view
        self._made: dict[tuple[str, int], nn.Module] = {}

    def layer(self, source: str, number: int) -> nn.Module:
        """Return one layer; it shares everything but parameters with the live model's.

        Args:
            source: ``base`` or an expert's name.
            number: From 0.
        """
        if (source, number) not in self._made:
            self._made[source, number] = self._build(source, number)
        return self._made[source, number]

    def keep(self, layers: Iterable[tuple[str, int]]) -> None:
        """Forget all layers but some, each given by source and number."""
        wanted = set(layers)
        self._made = {key: layer for key, layer in self._made.items() if key in wanted}

    def _build(self, source: str, number: int) -> nn.Module:
        live = self._live[number]
        layer = twin(live, (path for path, _ in live.named_modules()))
        for name, parameter in live.named_parameters():
            views = self._views.get(f"{self._path}.{number}.{name}", {})
            module, _, leaf = name.rpartition(".")
            filled = _filled(parameter.data, views, partial(self._tensor, source))
            own = nn.Parameter(filled, requires_grad=False)
            layer.get_submodule(module)._parameters[leaf] = own
        return layer


def _filled(
    live: torch.Tensor, views: dict[str, torch.Tensor], tensor: Callable[[str], torch.Tensor]
) -> torch.Tensor:
    """Make a parameter of a source's tensors, laid out as they are in the live one."""
    if len(views) == 1:
        [(name, view)] = views.items()
        if view.shape == live.shape and view.stride() == live.stride():
            return tensor(name).to(live)  # the very tensor, where nothing differs
    filled = live.clone()
    for name, view in views.items():
        offset = view.storage_offset() - live.storage_offset()
        filled.as_strided(view.shape, view.stride(), offset).copy_(tensor(name))
    return filled
