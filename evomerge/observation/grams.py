"""Second moments of what goes into linear layers, and of the gradients that come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from evomerge.observation.observer import Observer, hooked

__all__ = ["gradient_grams", "input_grams"]


def input_grams(observer: Observer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Average x xᵀ over all tokens of all examples, x being what goes into a layer.

    Args:
        observer: Model and examples.
        names: Matrices of linear layers.

    Returns:
        (inputs, inputs) by name, on the CPU.

    Source:
        Jin et al. 2023, RegMean, arXiv:2212.09849, section 3.1.
    """
    sums = {name: _Sum(observer.layers[name].in_features, observer) for name in names}
    handles = (
        observer.layers[name].register_forward_pre_hook(_on_input(total))
        for name, total in sums.items()
    )
    with hooked(handles):
        for _ in observer.read_forward():
            pass
    return {name: total.mean() for name, total in sums.items()}


def gradient_grams(observer: Observer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Average g gᵀ over tokens, g being the gradient of the log-likelihood by a layer's output.

    Args:
        observer: Model, examples and labels.
        names: Matrices of linear layers.

    Returns:
        (outputs, outputs) by name, on the CPU.

    Source:
        Tam et al. 2023, MaTS, arXiv:2312.04339, section 3.2 (K-FAC).
    """
    sums = {name: _Sum(observer.layers[name].out_features, observer) for name in names}
    handles = (
        observer.layers[name].register_forward_hook(_on_gradient(total))
        for name, total in sums.items()
    )
    with hooked(handles), observer.only():
        for _ in observer.read_backward():
            pass
    return {name: total.mean() for name, total in sums.items()}


class _Sum:
    """A running sum of outer products."""

    def __init__(self, size: int, observer: Observer) -> None:
        device = observer.model.device
        self._total = torch.zeros(size, size, dtype=observer.accumulated, device=device)
        self._n = 0

    @torch.no_grad()
    def add(self, vectors: torch.Tensor) -> None:
        rows = vectors.reshape(-1, vectors.shape[-1]).to(self._total.dtype)
        self._total.addmm_(rows.T, rows)
        self._n += len(rows)

    def mean(self) -> torch.Tensor:
        """Turn the sum into the mean, once: in place, since a second copy may not fit."""
        return self._total.div_(max(self._n, 1)).cpu()


def _on_input(total: _Sum) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        total.add(inputs[0])

    return add


def _on_gradient(
    total: _Sum,
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    def watch(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        del inputs
        output.register_hook(total.add)

    return watch
