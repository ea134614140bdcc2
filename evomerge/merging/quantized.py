"""Linear layers of a live model run with quantized weights, as a deployed merge will be run.

The live model keeps its parameters: merges are written into them, exports are made of them, slopes
are taken through them. What its linear layers compute with is made from them after each merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from evomerge.errors import CheckpointError
from evomerge.models.structure import decoder_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["QUANTIZATIONS", "Quantization", "QuantizedLayers", "quantize_fault"]

_GROUP = 32  # weights of a row that share a scale, for int4

_Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Quantization:
    """How weights are quantized.

    Attributes:
        summary: In words.
        bytes_per_weight: Held beside the live model, scales included, at most.
        layer: Makes a linear layer out of a weight (out, in) and a bias; neither is changed.
        group: Weights of a row that share a scale; what rows must divide into.
    """

    summary: str
    bytes_per_weight: float
    layer: Callable[[torch.Tensor, nn.Parameter | None], _Layer]
    group: int = 1


class QuantizedLayers:
    """The linear layers inside the decoder layers of a model; embedding and head stay as they are.

    Args:
        model: Live; its linear layers run quantized from now on.
        name: One of ``QUANTIZATIONS``.

    Raises:
        CheckpointError: The model is not made of linear layers; see ``quantize_fault``.
    """

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        if fault := quantize_fault(model, name):
            raise CheckpointError(fault)
        layer = QUANTIZATIONS[name].layer
        self._layers = [_QuantizedLinear(one, layer) for one in _linear_layers(model).values()]
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Quantize the parameters as they are now."""
        for layer in self._layers:
            layer.update()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the parameters themselves while the context is open."""
        for layer in self._layers:
            layer.is_on = False
        try:
            yield
        finally:
            for layer in self._layers:
                layer.is_on = True


def quantize_fault(model: PreTrainedModel, name: str) -> str | None:
    """Say why a model cannot be quantized; ``None`` if it can.

    Args:
        model: Any, also on the meta device.
        name: One of ``QUANTIZATIONS``.
    """
    linear, group = _linear_layers(model), QUANTIZATIONS[name].group
    path, _ = decoder_layers(model)
    for parameter, value in model.get_submodule(path).named_parameters():
        if value.ndim > 1 and parameter.removesuffix(".weight") not in linear:
            return (
                f"expected linear layers to quantize, got {path}.{parameter} of "
                f"{type(model).__name__}, which is no weight of one"
            )
    for layer, one in linear.items():
        if one.in_features % group:
            return (
                f"expected rows of {path}.{layer} that divide into groups of {group} for {name}, "
                f"got {one.in_features} weights"
            )
    return None


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Find the linear layers, by their names within the list of decoder layers."""
    path, _ = decoder_layers(model)
    modules = model.get_submodule(path).named_modules()
    return {name: module for name, module in modules if type(module) is nn.Linear}


class _QuantizedLinear:
    """Takes the place of a linear layer's ``forward``."""

    def __init__(self, linear: nn.Linear, make: Callable[..., _Layer]) -> None:
        self._linear, self._make = linear, make
        self._quantized: _Layer | None = None
        self.is_on = True
        linear.forward = self.forward  # type: ignore[assignment, method-assign]

    def update(self) -> None:
        self._quantized = None  # its memory is for the next one
        self._quantized = self._make(self._linear.weight.detach(), self._linear.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.is_on and self._quantized is not None:
            return self._quantized(inputs)
        return functional.linear(inputs, self._linear.weight, self._linear.bias)


def _plain_layer(weight: torch.Tensor, bias: nn.Parameter | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = bias  # type: ignore[assignment]
    return layer


def _by_torchao(config: Callable[[Any], object]) -> Callable[..., _Layer]:
    """Make layers by a config of torchao's, chosen from the module that holds them."""

    def make(weight: torch.Tensor, bias: nn.Parameter | None) -> _Layer:
        from torchao import quantization

        layer = nn.Sequential(_plain_layer(weight, bias))
        quantization.quantize_(layer, config(quantization))
        return layer

    return make


def _int4(quantization: Any) -> object:
    from torchao.quantization.granularity import PerGroup

    granularity = PerGroup(_GROUP)
    return quantization.IntxWeightOnlyConfig(
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        granularity=granularity,
    )


QUANTIZATIONS: Mapping[str, Quantization] = {
    "int8": Quantization(
        "weights in 8 bits, a scale per row",
        1.1,
        _by_torchao(lambda module: module.Int8WeightOnlyConfig()),
    ),
    "int8_dynamic": Quantization(
        "weights in 8 bits, a scale per row; inputs, too, a scale per token",
        1.1,
        _by_torchao(lambda module: module.Int8DynamicActivationInt8WeightConfig()),
    ),
    "int4": Quantization(
        f"weights in 4 bits, a scale and a zero per {_GROUP} of a row",
        1.2,
        _by_torchao(_int4),
        _GROUP,
    ),
}
"""By what ``engine: {quantize: NAME}`` calls them."""
