"""What may be observed, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from evomerge.models.linear import linear_layers
from evomerge.models.parameters import live_views
from evomerge.models.writer import TensorForm
from evomerge.observation.grams import gradient_grams, input_grams
from evomerge.observation.moments import input_moments
from evomerge.observation.observer import Observer
from evomerge.observation.routers import ROUTERS, n_routed, router_usage
from evomerge.observation.squares import fisher_diagonals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["OBSERVATIONS", "ObservationKind", "ObservationName"]

ObservationName = Literal["fisher", "input_gram", "gradient_gram", "input_moments", "router_usage"]


@dataclass(frozen=True)
class ObservationKind:
    """One thing to observe.

    Attributes:
        shapes: What it yields of a model with tensors of these names, by name; the model may be on
            the meta device.
        observe: Yields some of it.
        needs_labels: Whether it depends on what counts as the answers.
    """

    shapes: Callable[[PreTrainedModel, Sequence[str]], dict[str, tuple[int, ...]]]
    observe: Callable[[Observer, Sequence[str]], dict[str, torch.Tensor]]
    needs_labels: bool = False

    def forms(self, model: PreTrainedModel, names: Sequence[str]) -> dict[str, TensorForm]:
        """Say what it yields, in float32 or in a model's dtype if that has more digits."""
        dtype = torch.promote_types(torch.float32, model.dtype)
        return {name: TensorForm(dtype, shape) for name, shape in self.shapes(model, names).items()}


def _of_tensors(model: PreTrainedModel, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(view.tensor.shape) for name, view in live_views(model, names).items()}


def _of_inputs(model: PreTrainedModel, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found = linear_layers(model, names).items()
    return {name: (layer.in_features, layer.in_features) for name, layer in found}


def _of_outputs(model: PreTrainedModel, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Leave the head out: its outputs are the whole vocabulary."""
    found = linear_layers(model, names).items()
    head = model.get_output_embeddings()
    return {
        name: (layer.out_features, layer.out_features) for name, layer in found if layer is not head
    }


def _moments(model: PreTrainedModel, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    return {name: (2, layer.in_features) for name, layer in linear_layers(model, names).items()}


def _routers(model: PreTrainedModel, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    del names
    n = n_routed(model.config)
    return {ROUTERS: (model.config.get_text_config().num_hidden_layers, n)} if n else {}


OBSERVATIONS: Mapping[ObservationName, ObservationKind] = {
    "fisher": ObservationKind(_of_tensors, fisher_diagonals, needs_labels=True),
    "input_gram": ObservationKind(_of_inputs, input_grams),
    "gradient_gram": ObservationKind(_of_outputs, gradient_grams, needs_labels=True),
    "input_moments": ObservationKind(_moments, input_moments),
    "router_usage": ObservationKind(_routers, router_usage),
}
