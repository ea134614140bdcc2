"""Merged tensors for a file that asks for them one by one, made some batches ahead."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import Job
from evomerge.merging.batches import in_batches
from evomerge.merging.lowering import lower_tensor
from evomerge.merging.sources import Sources
from evomerge.models.writer import TensorForm
from evomerge.recipe.recipe import Recipe

__all__ = ["MergedAhead"]


class MergedAhead:
    """The tensors of one file of a merged checkpoint, each handed out once.

    Many small tensors are merged at once, so that threads need not wait for each other. Memory: one
    batch of outputs with what its experts compute, if tensors are asked for in order.

    Args:
        recipe: What to merge.
        sources: Its models.
        forms: Tensors of the file, in order.
        batch_bytes: Largest size of a batch; a larger tensor is merged alone.
    """

    def __init__(
        self, recipe: Recipe, sources: Sources, forms: Mapping[str, TensorForm], batch_bytes: int
    ) -> None:
        self._recipe, self._sources, self._forms = recipe, sources, forms
        self._merged: dict[str, torch.Tensor] = {}
        merged = [name for name, form in forms.items() if form.dtype.is_floating_point]
        batches = in_batches(merged, self._size, batch_bytes)
        self._batch_of = {name: batch for batch in batches for name in batch}

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor; masks and indices, which are not merged, are the anchor's.

        Raises:
            CheckpointError: A source is not finite.
            RecipeError: The recipe cannot be lowered.
        """
        if name not in self._batch_of:
            return self._sources.anchor.tensor(name)
        if name not in self._merged:
            self._merge(self._batch_of[name])
        return self._merged.pop(name)

    def _size(self, name: str) -> int:
        return self._forms[name].nbytes + self._sources.computed_bytes(name)

    def _merge(self, names: list[str]) -> None:
        sources = self._sources
        sources.check_finite(*names)
        for name in names:
            self._merged[name] = torch.empty(self._forms[name].shape, dtype=self._forms[name].dtype)
        merge_all(
            Job(lower_tensor(self._recipe, sources, name), *sources.tensors(name), out)
            for name, out in self._merged.items()
        )
        for name in names:
            sources.forget(name)
