"""One live model and the examples that it reads, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from evomerge.evaluation.teacher_forcing import Reading, as_evaluated
from evomerge.models.linear import linear_layers
from evomerge.models.parameters import LiveView, live_views
from evomerge.observation.labels import LabelKind, log_likelihood

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Observer", "hooked"]


@dataclass(frozen=True, eq=False)
class Observer:
    """Runs a model over examples; each pass reads one example, without dropout.

    Attributes:
        model: Live, as it is at each call.
        names: Its tensors, as in the checkpoint.
        readings: The examples.
        max_length: Longest sequence the model takes; longer ones lose tokens on the left.
        labels: What counts as the answers where gradients are asked for.
    """

    model: PreTrainedModel
    names: tuple[str, ...]
    readings: tuple[Reading, ...]
    max_length: int
    labels: LabelKind = "sampled"

    @cached_property
    def layers(self) -> Mapping[str, nn.Linear]:
        """The linear layers by the names of their matrices."""
        return linear_layers(self.model, self.names)

    @cached_property
    def views(self) -> Mapping[str, LiveView]:
        """Every tensor where it lives in the model."""
        return live_views(self.model, self.names)

    @property
    def accumulated(self) -> torch.dtype:
        """Dtype of sums: float32, or that of a model which has more digits."""
        return torch.promote_types(torch.float32, self.model.dtype)

    @torch.no_grad()
    def read_forward(self, **settings: bool) -> Iterator[object]:
        """Run every example, as one sequence, and yield what the model returns."""
        with as_evaluated(self.model):
            for reading in self.readings:
                tokens = torch.tensor([reading.tokens[-self.max_length :]])
                tokens = tokens.to(self.model.device)
                yield self.model(tokens, use_cache=False, **settings)

    def read_backward(self) -> Iterator[None]:
        """Run every example forward, and the log-likelihood of its labels backward.

        Only what asks for a gradient gets one.
        """
        with as_evaluated(self.model):
            for i, reading in enumerate(self.readings):
                with torch.enable_grad():
                    log_likelihood(
                        self.model, reading, self.max_length, self.labels, example=i
                    ).backward()
                yield

    @contextmanager
    def only(self, *parameters: nn.Parameter) -> Iterator[None]:
        """Let gradients reach some parameters alone; none: what the embedding yields."""
        with ExitStack() as stack:
            for parameter in self.model.parameters():
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            if not parameters:
                embedding = self.model.get_input_embeddings()
                stack.enter_context(embedding.register_forward_hook(_leaf))
            yield


def _leaf(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """Start a graph here."""
    del inputs
    return output.detach().requires_grad_()


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Take hooks out of a model after the block, also if it raises."""
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield
