"""The candidate: one live model per process, into which every recipe is merged in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch

from evomerge.kernels.choice import merge
from evomerge.kernels.plan import TensorPlan
from evomerge.merging.lowering import lower
from evomerge.merging.path_rules import PathRules
from evomerge.merging.sources import Sources
from evomerge.merging.wiring import Wiring
from evomerge.models.parameters import check_live, contiguous_output, live_tensors
from evomerge.recipe.path import Hop
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
        device: Where the live model is.

    Raises:
        CheckpointError: The live model does not hold some tensor of the checkpoint.
    """

    def __init__(self, sources: Sources, dtype: Dtype | None = None, device: str = "cpu") -> None:
        self._sources = sources
        self.model = load_model(str(sources.anchor.folder), output_dtype(sources, dtype))
        self.model.to(device)  # type: ignore[arg-type]
        self._live = live_tensors(self.model, sources.names)
        check_live(self._live, sources.anchor)
        self._plans: dict[str, TensorPlan] = {}
        self._path_rules = PathRules(sources)
        self._wiring: Wiring | None = None  # until a recipe has a path

    @torch.no_grad()
    def materialise(self, recipe: Recipe) -> None:
        """Merge a recipe into the live model.

        Args:
            recipe: Over the same base and experts as the sources.

        Raises:
            RecipeError: The recipe cannot be lowered, or the model cannot run its path.
        """
        self._path_rules.check(recipe.path)
        for name, plan in lower(recipe, self._sources):
            if name not in self._live or self._plans.get(name) == plan:
                continue
            self._plans.pop(name, None)  # stays out if the merge is interrupted half-way
            with contiguous_output(self._live[name]) as out:
                base, experts = self._sources.tensors(name)
                merge(plan, _at(base, out), [_at(expert, out) for expert in experts], out)
            self._plans[name] = plan
        self._connect(recipe.path)

    def _connect(self, path: tuple[Hop, ...]) -> None:
        """Run the layers of a path; most studies never need to look for the layers."""
        if path or self._wiring is not None:
            self._wiring = self._wiring or Wiring(self.model, self._sources)
            self._wiring.connect(path)


@overload
def _at(tensor: torch.Tensor, out: torch.Tensor) -> torch.Tensor: ...
@overload
def _at(tensor: None, out: torch.Tensor) -> None: ...
def _at(tensor: torch.Tensor | None, out: torch.Tensor) -> torch.Tensor | None:
    """Bring a source to the device of the live model; on CPU it is there already."""
    return None if tensor is None else tensor.to(out.device)


def output_dtype(sources: Sources, dtype: Dtype | None) -> torch.dtype:
    """Resolve a recipe's dtype: the one named, else that of the anchor's first merged tensor."""
    if dtype is not None:
        named: torch.dtype = getattr(torch, dtype)
        return named
    return sources.anchor.dtype(sources.names[0])


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
