"""Merged tensors for a file that asks for them one by one, made some batches ahead."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import MergeJob
from evomerge.merging.batches import in_batches
from evomerge.merging.folding import Stored
from evomerge.merging.lowering import lower_tensor
from evomerge.merging.sources import Sources
from evomerge.models.writer import TensorForm
from evomerge.recipe.path import MERGED
from evomerge.recipe.recipe import Recipe

__all__ = ["MergedAhead"]


class MergedAhead:
    """The tensors of one file of a merged checkpoint, each handed out once.

    Many small tensors are merged at once, so that threads need not wait for each other. Memory: one
    batch of outputs with what its experts compute, if tensors are asked for in order.

    Args:
        recipe: What to merge.
        sources: Its models.
        stored: What the tensors of the file are.
        forms: Their forms, in the order of the file.
        batch_bytes: Largest size of a batch; a larger tensor is merged alone.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: Sources,
        stored: Mapping[str, Stored],
        forms: Mapping[str, TensorForm],
        batch_bytes: int,
    ) -> None:
        self._recipe, self._sources, self._stored, self._forms = recipe, sources, stored, forms
        self._ready: dict[str, torch.Tensor] = {}
        of_all = set(sources.names)
        merged = [name for name in forms if stored[name].name in of_all]
        batches = in_batches(merged, self._size, batch_bytes)
        self._batch_of = {name: batch for batch in batches for name in batch}

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor; what is not merged is lent, or, as masks and indices, the anchor's.

        Raises:
            CheckpointError: A source is not finite.
            RecipeError: The recipe cannot be lowered.
        """
        if name not in self._batch_of:
            return self._sources.lent_tensor(self._stored[name].name).to(self._forms[name].dtype)
        if name not in self._ready:
            self._make(self._batch_of[name])
        return self._ready.pop(name)

    def _size(self, name: str) -> int:
        return self._forms[name].nbytes + self._sources.computed_bytes(self._stored[name].name)

    def _make(self, names: list[str]) -> None:
        origins = tuple(dict.fromkeys(self._stored[name].name for name in names))
        self._sources.check_finite(*origins)
        for name in names:
            self._ready[name] = torch.empty(self._forms[name].shape, dtype=self._forms[name].dtype)
        merge_all(self._job(name) for name in names if self._stored[name].source == MERGED)
        for name in names:
            self._fold(self._stored[name], self._ready[name])
        for name in origins:
            self._sources.forget(name)

    def _job(self, name: str) -> MergeJob:
        origin = self._stored[name].name
        plan = lower_tensor(self._recipe, self._sources, origin)
        return MergeJob(plan, *self._sources.tensors(origin, plan.prepared), self._ready[name])

    def _fold(self, stored: Stored, out: torch.Tensor) -> None:
        is_merged = stored.source == MERGED
        tensor = out if is_merged else self._sources.tensor(stored.source, stored.name)
        stored.fold(tensor, out)
