"""Means and sizes of what goes into linear layers, input by input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from evomerge.observation.observer import Observer, hooked

__all__ = ["input_moments"]


def input_moments(observer: Observer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Average what goes into linear layers over all tokens of all examples.

    Args:
        observer: Model and examples.
        names: Matrices of linear layers.

    Returns:
        (2, inputs) by name, on the CPU: means, and root mean squares.
    """
    sums = {
        name: torch.zeros(
            2,
            observer.layers[name].in_features,
            dtype=observer.accumulated,
            device=observer.model.device,
        )
        for name in names
    }
    handles = (
        observer.layers[name].register_forward_pre_hook(_adding(total))
        for name, total in sums.items()
    )
    n = 0
    with hooked(handles):
        for reading, _ in zip(observer.readings, observer.read_forward(), strict=True):
            n += len(reading.tokens[-observer.max_length :])
    return {name: torch.stack([t[0] / n, (t[1] / n).sqrt()]).cpu() for name, t in sums.items()}


def _adding(total: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        rows = inputs[0].reshape(-1, total.shape[1]).to(total.dtype)
        total[0] += rows.sum(0)
        total[1] += rows.square().sum(0)

    return add
