"""Second moments of inputs that have gone through merged layers: a layer is merged, then the next.

A stage is a decoder layer; the first are the embeddings, the last is all that follows the layers.
Every expert's own part of a stage runs on what the merged stages before make of its prompts.

Source: Nguyen et al. 2025, RegMean++, arXiv:2508.03121.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from evomerge.models.checkpoint import Checkpoint
from evomerge.models.expert import TensorSource
from evomerge.models.roles import TensorRole
from evomerge.models.writer import TensorForm
from evomerge.observation.grams import input_grams
from evomerge.observation.observer import Observer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evomerge.methods.prepared import Preparation, TaskVectors

__all__ = ["PROPAGATED", "Propagation", "largest_stage", "stage_of"]

PROPAGATED = "propagated_gram"
"""What such observations are called."""


def stage_of(role: TensorRole, n_layers: int) -> int:
    """Tell when a tensor is merged: 0 before the layers, 1 to ``n_layers`` with its own, then."""
    if role.in_layer:
        return 1 + role.layer
    return 0 if role.kind == "embedding" else 1 + n_layers


def largest_stage(forms: Mapping[str, TensorForm], roles: Mapping[str, TensorRole]) -> int:
    """Reckon the bytes of one expert's second moments of a stage.

    Args:
        forms: Second moments by tensor.
        roles: Tensors that the live model holds, by name.
    """
    n_layers = 1 + max(role.layer for role in roles.values())
    sizes: Counter[int] = Counter()
    for name, form in forms.items():
        sizes[stage_of(roles[name], n_layers)] += form.nbytes
    return max(sizes.values(), default=0)


class Propagation:
    """Goes through a model stage by stage.

    Args:
        base: What task vectors are added to.
        experts: In recipe order.
        roles: Tensors that the live model holds, by name.
        preparation: Merges a tensor, given its second moments.
        task_vectors: Returns those of a tensor.
        live: Loads the live model, and returns it with its tensors.
        observer: From the live model and an expert's position to what that expert reads.
        grams: Second moments of an earlier stage, by ``EXPERT NAME``; ``None``: there are none.
    """

    def __init__(
        self,
        base: Checkpoint,
        experts: Sequence[TensorSource],
        roles: Mapping[str, TensorRole],
        preparation: Preparation,
        task_vectors: Callable[[str], TaskVectors],
        *,
        live: Callable[[], tuple[PreTrainedModel, Mapping[str, torch.Tensor]]],
        observer: Callable[[PreTrainedModel, int], Observer],
        grams: Callable[[int, str], torch.Tensor | None],
    ) -> None:
        self._base, self._experts, self._roles = base, experts, roles
        self._preparation, self._task_vectors = preparation, task_vectors
        self._live, self._observer, self._grams = live, observer, grams
        self._n_layers = 1 + max(role.layer for role in roles.values())
        self._n_merged = 0  # stages that the live model has merged
        self._found: tuple[int, dict[str, torch.Tensor]] = (-1, {})

    @property
    def n_stages(self) -> int:
        """Decoder layers, and two more."""
        return self._n_layers + 2

    def names(self, stage: int) -> list[str]:
        """List the tensors of a stage."""
        roles = self._roles.items()
        return [name for name, role in roles if stage_of(role, self._n_layers) == stage]

    def gram(self, stage: int, key: str) -> torch.Tensor:
        """Return second moments of a stage, whose files before are all there.

        Args:
            stage: Which.
            key: ``EXPERT NAME``.
        """
        if self._found[0] != stage:
            self._found = (-1, {})  # before the next ones take memory
            self._found = stage, self._observed(stage)
        return self._found[1][key]

    @torch.no_grad()
    def _observed(self, stage: int) -> dict[str, torch.Tensor]:
        while self._n_merged < stage:
            for name in self.names(self._n_merged):
                self._tensors[name].copy_(self._merge(self._n_merged, name))
            self._n_merged += 1
        found: dict[str, torch.Tensor] = {}
        for i, expert in enumerate(self._experts):
            for name in self.names(stage):
                self._tensors[name].copy_(expert.tensor(name))
            observer = self._observer(self._live()[0], i)
            linear = [name for name in self.names(stage) if name in observer.layers]
            found |= {f"{i} {name}": g for name, g in input_grams(observer, linear).items()}
        return found

    @property
    def _tensors(self) -> Mapping[str, torch.Tensor]:
        return self._live()[1]

    def _merge(self, stage: int, name: str) -> torch.Tensor:
        """Merge a tensor of a stage whose second moments are known."""
        keys = [f"{i} {name}" for i in range(len(self._experts))]
        grams = [self._grams(stage, key) for key in keys]
        observed = {PROPAGATED: [lambda gram=gram: gram for gram in grams]}
        vectors = replace(self._task_vectors(name), observed=observed)
        total = self._base.tensor(name).float()
        for part in self._preparation.run(vectors):
            total = total + part
        return total
