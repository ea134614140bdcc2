"""The candidate: one live model per process, into which every recipe is merged in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from evomerge.errors import CheckpointError
from evomerge.kernels.eager import merge_eager
from evomerge.kernels.plan import TensorPlan
from evomerge.merging.lowering import lower
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Dtype, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LiveCandidate", "load_model", "output_dtype"]


class LiveCandidate:
    """A transformers model whose parameters are overwritten by each merge.

    No tensor is allocated per candidate; tensors whose plan is that of the last candidate are left
    alone. Tied tensors share storage and are written once.

    Args:
        sources: Models to merge.
        dtype: Dtype of the live model; ``None`` takes the anchor's.

    Raises:
        CheckpointError: The live model has no parameter for some tensor of the checkpoint.
    """

    def __init__(self, sources: Sources, dtype: Dtype | None = None) -> None:
        self._sources = sources
        self._dtype = output_dtype(sources, dtype)
        self.model = load_model(str(sources.anchor.folder), self._dtype)
        self._parameters = self._matched_parameters()
        self._plans: dict[str, TensorPlan] = {}

    @torch.no_grad()
    def materialise(self, recipe: Recipe) -> None:
        """Merge a recipe into the live model.

        Args:
            recipe: Over the same base and experts as the sources.

        Raises:
            RecipeError: The recipe cannot be lowered.
        """
        for name, plan in lower(recipe, self._sources):
            if self._plans.get(name) == plan:
                continue
            self._plans.pop(name, None)  # stays out if the merge is interrupted half-way
            base, experts = self._sources.tensors(name)
            merge_eager(plan, base, experts, self._parameters[name].data)
            self._plans[name] = plan

    def _matched_parameters(self) -> dict[str, torch.nn.Parameter]:
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        unknown = [name for name in self._sources.anchor.names if name not in parameters]
        if unknown:
            raise CheckpointError(
                f"expected tensors that {type(self.model).__name__} has as parameters, got "
                f"{len(unknown)} others in {self._sources.anchor.folder}, e.g. {unknown[0]}"
            )
        return {name: parameters[name] for name in self._sources.anchor.names}


def output_dtype(sources: Sources, dtype: Dtype | None) -> torch.dtype:
    """Resolve a recipe's dtype: the one named, else that of the anchor's first floating tensor."""
    if dtype is not None:
        named: torch.dtype = getattr(torch, dtype)
        return named
    return sources.anchor.tensor(sources.anchor.names[0]).dtype


def load_model(folder: str, dtype: torch.dtype | Literal["auto"]) -> PreTrainedModel:
    """Load a model for inference with plain transformers, without remote code.

    Args:
        folder: Local model folder.
        dtype: Dtype of its parameters; ``auto`` takes that of the config.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True
    )
    model.eval()
    return model
