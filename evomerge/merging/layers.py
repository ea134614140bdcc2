"""Layers of the raw sources as live modules, for paths that run them beside merged ones."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from evomerge.merging.feeding import ReadTensor
from evomerge.models.parameters import live_views
from evomerge.models.structure import decoder_layers
from evomerge.models.twins import twin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["SourceLayers"]

_Views = dict[str, torch.Tensor]  # by checkpoint name
_Read = Callable[[str], torch.Tensor]


class SourceLayers:
    """The decoder layers of base and experts, made when first asked for.

    Tensors that are read as the live model holds them, in dtype and form, on its device, are the
    parameters themselves: mapped from files that all processes of a machine share, or resident with
    what is merged. Others are converted or computed, and take memory while their layer is kept.

    Args:
        model: The live model; its layers are those of the anchor.
        names: Of the sources' tensors.
        tensor: Reads them.
    """

    def __init__(self, model: PreTrainedModel, names: Iterable[str], tensor: ReadTensor) -> None:
        self._tensor = tensor
        self._path, _ = decoder_layers(model)
        self._live = list(model.get_submodule(self._path).children())
        self._views: dict[str, _Views] = {}  # by parameter
        for name, view in live_views(model, names).items():
            self._views.setdefault(view.parameter, {})[name] = view.tensor
        self._made: dict[tuple[str, int], nn.Module] = {}
        self._converted: set[tuple[str, int]] = set()

    def layer(self, source: str, number: int) -> nn.Module:
        """Return one layer; it shares everything but parameters with the live model's.

        Args:
            source: ``base`` or an expert's name.
            number: From 0.
        """
        if (source, number) not in self._made:
            self._made[source, number] = self._build(source, number)
        return self._made[source, number]

    def forget_others(self, layers: Container[tuple[str, int]]) -> set[tuple[str, int]]:
        """Forget layers that take memory, except for some.

        Args:
            layers: Those to keep, each given by source and number.

        Returns:
            Those forgotten.
        """
        forgotten = {key for key in self._converted if key not in layers}
        self._converted -= forgotten
        for key in forgotten:
            del self._made[key]
        return forgotten

    def _build(self, source: str, number: int) -> nn.Module:
        live = self._live[number]
        layer = twin(live, (path for path, _ in live.named_modules()))
        read = partial(self._tensor, source)
        for name, parameter in live.named_parameters():
            views = self._views.get(f"{self._path}.{number}.{name}", {})
            module, _, leaf = name.rpartition(".")
            own = _same(parameter.data, views, read)
            if own is None:
                own = _converted(parameter.data, views, read)
                self._converted.add((source, number))
            setattr(layer.get_submodule(module), leaf, nn.Parameter(own, requires_grad=False))
        return layer


def _same(live: torch.Tensor, views: _Views, read: _Read) -> torch.Tensor | None:
    """Read a parameter of a source that the live model would hold as it is; else ``None``."""
    if len(views) != 1:
        return None
    [(name, view)] = views.items()
    tensor = read(name)
    is_whole = view.shape == live.shape and view.stride() == live.stride()
    is_alike = (tensor.dtype, tensor.device) == (live.dtype, live.device)
    is_there_anyway = tensor.data_ptr() == read(name).data_ptr()  # not computed at each reading
    return tensor if is_whole and is_alike and is_there_anyway else None


def _converted(live: torch.Tensor, views: _Views, read: _Read) -> torch.Tensor:
    """Make a parameter of a source's tensors, laid out as they are in the live one."""
    filled = live.clone()
    for name, view in views.items():
        offset = view.storage_offset() - live.storage_offset()
        filled.as_strided(view.shape, view.stride(), offset).copy_(read(name))
    return filled
