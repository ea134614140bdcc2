"""Diagonals of the Fisher information: mean squares of the gradients of single examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import nn

from evomerge.models.parameters import LiveView
from evomerge.observation.observer import Observer

__all__ = ["fisher_diagonals"]


def fisher_diagonals(observer: Observer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Average the squared gradients of the examples' log-likelihoods.

    A gradient is squared and dropped as soon as it is complete, while those of the layers before
    are still to come.

    Args:
        observer: Model, examples and labels.
        names: Tensors that the model holds.

    Returns:
        By name, of its shape, on the CPU. Tensors that no example reaches have zeros.

    Source:
        Matena & Raffel 2022, arXiv:2111.09832, equation 3.
    """
    parameters = dict(observer.model.named_parameters())
    wanted = {observer.views[name].parameter for name in names}
    sums = {name: torch.zeros_like(parameters[name], dtype=observer.accumulated) for name in wanted}
    with ExitStack() as stack:
        stack.enter_context(observer.only(*(parameters[name] for name in wanted)))
        for name, total in sums.items():
            handle = parameters[name].register_post_accumulate_grad_hook(_adding(total))
            stack.callback(handle.remove)
        for _ in observer.read_backward():
            pass
    n = len(observer.readings)
    found = {}
    for name in names:
        view = observer.views[name]
        found[name] = (_part(sums[view.parameter], view, parameters[view.parameter]) / n).cpu()
    return found


def _adding(total: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def add(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None  # that is what the hook was called for
        gradient = parameter.grad.to(total.dtype)
        total.addcmul_(gradient, gradient)
        parameter.grad = None

    return add


def _part(total: torch.Tensor, view: LiveView, parameter: nn.Parameter) -> torch.Tensor:
    """Take of a whole parameter's sums those of a tensor that may be a part of it."""
    offset = view.tensor.storage_offset() - parameter.storage_offset()
    return total.as_strided(view.tensor.shape, view.tensor.stride(), offset)
