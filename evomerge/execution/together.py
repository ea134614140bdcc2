"""Candidates that may be ensembles: copies of the models beside the one that is merged into."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from evomerge.ensembles.model import Ensemble
from evomerge.execution.protocol import WorkerSpec
from evomerge.merging.candidate import LiveCandidate
from evomerge.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TogetherCandidate"]


class TogetherCandidate:
    """Answers as one model or several do; see ``LiveCandidate``.

    Base and experts are copied as they are first needed, and stay in memory.

    Args:
        spec: Of the worker.
        merged: What other recipes are merged into.
    """

    def __init__(self, spec: WorkerSpec, merged: LiveCandidate) -> None:
        self._spec, self._merged = spec, merged
        self._copies: dict[str, PreTrainedModel] = {}
        self.model = Ensemble([merged.model], (1.0,), "logits")
        self.model.eval()

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Of the merge; an ensemble has none that are its own."""
        return self._merged.tensors

    def hold_all(self) -> None:
        """Let all models answer that may: batches are to be planned for what all of them keep."""
        assert self._spec.space is not None, "it has ensembles"
        self.materialise(self._spec.space.recipe(self._spec.space.defaults))

    def materialise(self, recipe: Recipe) -> None:
        """Merge a recipe, or let its models answer; complete on return."""
        if recipe.ensemble is None:
            self._merged.materialise(recipe)
            self.model.hold([self._merged.model], (1.0,), "logits")
            return
        shares = recipe.ensemble.shares
        members = [self._copy(name) for name in shares]
        self.model.hold(members, tuple(shares.values()), recipe.ensemble.by)

    def _copy(self, name: str) -> PreTrainedModel:
        if name not in self._copies:
            self._merged.materialise(self._spec.parent_recipe(name))
            self._copies[name] = copy.deepcopy(self._merged.model)
        return self._copies[name]
