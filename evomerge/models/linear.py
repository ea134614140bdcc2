"""Which tensors of a checkpoint are the matrices of linear layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from evomerge.models.parameters import live_views

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["linear_layers"]


def linear_layers(model: PreTrainedModel, names: Iterable[str]) -> Mapping[str, nn.Linear]:
    """Find the linear layers of a model.

    Args:
        model: Any transformers model, which may be on the meta device.
        names: Tensor names as in the checkpoint.

    Returns:
        By tensor name: the layer whose whole matrix of (outputs, inputs) that tensor is, in sorted
        order. Left out are embeddings and a head tied to one, matrices stored the other way round
        (GPT-2), and those that loading makes a part of a larger tensor (experts of mixtures).
    """
    found: dict[str, nn.Linear] = {}
    for name, view in sorted(live_views(model, names).items()):
        module = model.get_submodule(view.parameter.rpartition(".")[0])
        if not isinstance(module, nn.Linear) or not view.parameter.endswith(".weight"):
            continue
        if view.tensor.shape == module.weight.shape and view.tensor.is_contiguous():
            found[name] = module
    return found
