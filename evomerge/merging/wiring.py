"""Paths in a live model: its layers run in another order, repeated or left out, without copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evomerge.merging.feeding import ReadTensor
from evomerge.merging.layers import SourceLayers
from evomerge.merging.sources import Sources
from evomerge.models.branches import Branches, branches_of
from evomerge.models.depth import layer_settings
from evomerge.models.structure import decoder_layers
from evomerge.models.twins import twin
from evomerge.recipe.path import MERGED, Hop, cumulative_scales

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Wiring"]


class Wiring:
    """Replaces the list of layers inside a model, and what its config says about them.

    Each hop is a twin of its layer with its own position, by which caches are kept. Scales act as
    they do in the written checkpoint (see ``models.branches``): the stream stays divided by their
    product, so that both compute the same function. It is that of a scaled stream except for the
    norms' epsilon, which is not scaled here.

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
        self._path: tuple[Hop, ...] = ()

    def connect(self, path: tuple[Hop, ...]) -> None:
        """Make the model run a path, from its next call on.

        Args:
            path: One that ``PathRules`` allow; empty for the model's own layers.
        """
        if path == self._path:
            return
        self._source_layers.keep((hop.source, hop.layer) for hop in path)
        layers, settings = self._plain, self._original
        if path:
            layers = nn.ModuleList(self._hops(path))
            settings = self._settings.along([hop.layer for hop in path])
        setattr(self._parent, self._name, layers)
        for name, value in settings.items():
            setattr(self._config, name, value)
        self._path = path

    def _hops(self, path: Sequence[Hop]) -> list[nn.Module]:
        scales = cumulative_scales(path)
        return [self._hop(t, *each) for t, each in enumerate(zip(path, scales, strict=True))]

    def _hop(self, position: int, hop: Hop, scale: float) -> nn.Module:
        layer = self._layer(hop)
        scaled = self._branches if scale != 1 else None
        numbered = self._numbered[hop.layer]
        own = twin(layer, (*numbered, *scaled.outputs, *scaled.inputs) if scaled else numbered)
        for path in numbered:
            vars(own.get_submodule(path))["layer_idx"] = position
        if scaled:
            _scale(own, scaled, scale)
        return own

    def _layer(self, hop: Hop) -> nn.Module:
        if hop.source == MERGED:
            layer: nn.Module = self._plain[hop.layer]
            return layer
        return self._source_layers.layer(hop.source, hop.layer)


def _numbered(layer: nn.Module) -> tuple[str, ...]:
    """Find the modules that know their position, by which caches are kept."""
    return tuple(path for path, module in layer.named_modules() if "layer_idx" in vars(module))


def _scale(layer: nn.Module, branches: Branches, scale: float) -> None:
    """Make a layer run on the stream divided by a factor."""
    for path in branches.outputs:
        layer.get_submodule(path).register_forward_hook(_result_times(1 / scale))
    for path in branches.inputs:
        module = layer.get_submodule(path)
        module.register_forward_pre_hook(_input_times(scale), with_kwargs=True)


def _result_times(factor: float) -> Any:
    def hook(module: nn.Module, args: object, result: torch.Tensor) -> torch.Tensor:
        return result * factor

    return hook


def _input_times(factor: float) -> Any:
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (args[0] * factor, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * factor}

    return hook
