"""Devices that are not there: tensors of the CPU that say, and insist, that they are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

__all__ = ["FakeDevices", "device_of"]

_HOME = torch.device("cpu")
_GET_DEVICE = torch.Tensor.device.__get__  # type: ignore[attr-defined]
_SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]
# What reads one tensor into another, wherever the two are.
_BETWEEN = {torch.Tensor.copy_, _SET_DATA, torch._has_compatible_shallow_copy_type}


class FakeDevices(TorchFunctionMode):
    """While it is on, ``cpu:1`` is another device than ``cpu:0``, and ``cpu`` than both.

    All that is called from Python is looked at: operations on tensors of several devices fail, as
    they would with several GPUs; what is made of tensors is where these are.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == _GET_DEVICE:
            return device_of(args[0])
        if func is torch.Tensor.to or func is torch.Tensor.cpu:
            return _moved(*args, **kwargs) if func is torch.Tensor.to else _moved(*args, _HOME)
        own = {device_of(tensor) for tensor in _tensors((args, kwargs)) if tensor.ndim}
        wanted = kwargs.pop("device", None)
        if len(own) > 1 and func not in _BETWEEN:
            raise RuntimeError(f"expected all tensors on one device, got {own} in {func}")
        found = func(*args, **kwargs)
        if func == _SET_DATA:
            return _mark(args[0], device_of(args[1]))
        place = device_of(args[0]) if func in _BETWEEN else next(iter(own), _HOME)
        for tensor in _tensors(found):
            _mark(tensor, place if wanted is None else torch.device(wanted))
        return found


def device_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor says that it is."""
    place: torch.device = tensor.__dict__.get("_place", _HOME)
    return place


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _mark(tensor: torch.Tensor, place: torch.device) -> None:
    tensor.__dict__["_place"] = place


def _moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Do what ``Tensor.to`` does; what goes to another device is a copy."""
    place, dtype = device_of(tensor), tensor.dtype
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            place, dtype = device_of(value), value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, torch.device | str):
            place = torch.device(value)
    found = tensor if dtype == tensor.dtype else tensor.to(dtype)
    if found is tensor and place != device_of(tensor):
        found = tensor.clone()
    if found is not tensor:
        _mark(found, place)
    return found
