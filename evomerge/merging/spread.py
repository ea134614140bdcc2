"""A model over several devices of one worker: its layers are spread, all else is on the first.

What a layer is called with is moved to where the layer is; what comes after the layers, norm and
head, moves the hidden state back. So tokens, masks, logits and losses are on the first device, as
if there were no other, and keys and values stay with their layers. Devices take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evomerge.models.structure import decoder_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["device_numbers", "devices_of", "spread", "to_gpu"]


def devices_of(device: str, n: int) -> tuple[torch.device, ...]:
    """Name the devices of a worker.

    Args:
        device: Their type.
        n: How many; the only one has no number.
    """
    return tuple(torch.device(device, k) for k in range(n)) if n > 1 else (torch.device(device),)


def to_gpu(model: PreTrainedModel) -> None:
    """Move a model that no worker holds to the GPU, if there is one."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]


def device_numbers(layers: Sequence[int], others: int, n: int) -> list[int]:
    """Choose the device of each layer, so that all devices hold about the same.

    Args:
        layers: Size of each layer, in order.
        others: Size of all that is outside the layers, which the first device holds.
        n: Devices.

    Returns:
        Of each layer, from 0, in ascending order.
    """
    share = (others + sum(layers)) / n
    if n > 1 and others >= share:  # the first device is full
        return [1 + number for number in device_numbers(layers, 0, n - 1)]
    found, start = [], others
    for size in layers:
        found.append(min(n - 1, int((start + size / 2) / share)))
        start += size
    return found


def spread(model: PreTrainedModel, devices: Sequence[torch.device]) -> None:
    """Move a model's layers to devices, and let each fetch what it is called with.

    Args:
        model: In memory; changed.
        devices: At least two.
    """
    path, _ = decoder_layers(model)
    layers = list(model.get_submodule(path).children())
    inside = {parameter for layer in layers for parameter in layer.parameters()}
    sizes = [sum(parameter.nbytes for parameter in layer.parameters()) for layer in layers]
    others = sum(parameter.nbytes for parameter in model.parameters() if parameter not in inside)
    _move_others(model, f"{path}.", devices[0])
    carriers = [_Carrier(device) for device in devices]
    for layer, number in zip(layers, device_numbers(sizes, others, len(devices)), strict=True):
        layer.to(devices[number])
        layer.register_forward_pre_hook(carriers[number], with_kwargs=True)


def _move_others(model: PreTrainedModel, layers: str, device: torch.device) -> None:
    """Move what is outside the layers, and let it fetch what it is called with, too."""
    carrier = _Carrier(device)
    for name, module in model.named_modules():
        if name.startswith(layers):
            continue
        for tensor in _own(module):
            tensor.data = tensor.data.to(device)
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(carrier, with_kwargs=True)


def _own(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


class _Carrier:
    """Moves the arguments of a module's call; what all layers are given is moved once per pass."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._moved: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by id, which they keep

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        if self._is_new(args, kwargs):
            self._moved.clear()
        args = tuple(a.to(self._device) if isinstance(a, torch.Tensor) else a for a in args)
        return args, self._here(kwargs)

    def _is_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Tell whether the hidden state has just come from another device."""
        hidden = args[0] if args else kwargs.get("hidden_states")
        return isinstance(hidden, torch.Tensor) and hidden.device != self._device

    def _here(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value if value.device == self._device else self._copy(value)
        if type(value) in (tuple, list):
            return type(value)(map(self._here, value))
        if type(value) is dict:
            return {key: self._here(part) for key, part in value.items()}
        return value

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self._moved:
            self._moved[id(tensor)] = (tensor, tensor.to(self._device))
        return self._moved[id(tensor)][1]
