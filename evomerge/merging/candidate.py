"""The candidate: one live model per process, into which every recipe is merged in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from evomerge.errors import CheckpointError, RecipeError
from evomerge.kernels.plan import TensorPlan
from evomerge.merging.feeding import make_supply
from evomerge.merging.lowering import PlannedTensor, lower, merged_names
from evomerge.merging.path_rules import PathRules
from evomerge.merging.quantized import QuantizedLayers
from evomerge.merging.residency import residency_of
from evomerge.merging.slopes import CandidateSlopes, LiveGradients, PlanSlopes, watched
from evomerge.merging.sources import Sources
from evomerge.merging.spread import devices_of, spread
from evomerge.merging.wiring import Wiring
from evomerge.models.checkpoint import Checkpoint, model_dtype
from evomerge.models.files import read_json
from evomerge.models.merged_vocabulary import fit_vocabulary, write_vocabulary
from evomerge.models.parameters import check_live, contiguous_output, live_tensors, untie
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Dtype, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LiveCandidate", "load_model", "output_dtype"]


class LiveCandidate:
    """A transformers model whose parameters are overwritten by each merge.

    No tensor is allocated per candidate; tensors whose plan is that of the last candidate are left
    alone. Tensors that are one in all models share storage and are written once.

    Args:
        sources: Models to merge.
        dtype: Dtype of the live model; ``None`` takes the anchor's.
        device: Where the live model is.
        n_devices: Over how many of them its layers are spread.
        device_share: Which part of the device's memory is for this process.
        attention: How it computes attention; see ``load_model``.
        quantize: One of ``QUANTIZATIONS`` that its linear layers run with; ``None``: none.

    Raises:
        CheckpointError: The live model does not hold some tensor of the checkpoint, or cannot be
            quantized.
    """

    def __init__(
        self,
        sources: Sources,
        dtype: Dtype | None = None,
        device: str = "cpu",
        device_share: float = 1.0,
        attention: str | None = None,
        quantize: str | None = None,
        n_devices: int = 1,
    ) -> None:
        self._sources = sources
        self._devices, live_dtype = devices_of(device, n_devices), output_dtype(sources, dtype)
        residency = residency_of(sources, live_dtype, self._devices, device_share, quantize)
        self.model = load_model(str(sources.anchor.folder), live_dtype, attention)
        fit_vocabulary(self.model, sources.anchor)
        if sources.is_untied:
            untie(self.model)
        if n_devices > 1:
            spread(self.model, self._devices)
        else:
            self.model.to(self._devices[0])  # type: ignore[arg-type]
        live = live_tensors(self.model, (*sources.live_names, *sources.lent_names))
        write_vocabulary(live, sources.anchor)
        check_live(live, sources.anchor)
        self._live = _without_lent(live, sources)
        self._quantized = None if quantize is None else QuantizedLayers(self.model, quantize)
        places = {name: tensor.device for name, tensor in self._live.items()}
        supply = make_supply(sources, self._devices, residency, places)
        self._feed, self._tensor, self._tensors = supply.feed, supply.tensor, supply.tensors
        self._plans: dict[str, TensorPlan] = {}
        self._recipe: Recipe | None = None  # what is merged here
        self._path_rules = PathRules(sources)
        self._wiring: Wiring | None = None  # until a recipe has a path

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Every merged tensor by checkpoint name, as a view into the live model."""
        return self._live

    @torch.no_grad()
    def materialise(self, recipe: Recipe) -> None:
        """Merge a recipe into the live model; it is complete on return.

        Args:
            recipe: Over the same base and experts as the sources.

        Raises:
            RecipeError: The recipe cannot be lowered, or the model cannot run its path, or no path
                since it is quantized; the live
                model is as it was.
        """
        self._path_rules.check(recipe.path)
        if recipe.path and self._quantized is not None:
            raise RecipeError(
                "expected a merge without a data-flow path, whose layers are not quantized; leave "
                "out quantize"
            )
        if recipe.path and len(self._devices) > 1:
            raise RecipeError(
                "expected a merge without a data-flow path, whose layers are not spread over "
                "devices; set gpus_per_worker: 1"
            )
        plans = {
            name: plan
            for name, plan in lower(recipe, self._sources)
            if name in self._live and self._plans.get(name) != plan
        }
        self._recipe = None
        for name in plans:  # stay out if the merge is interrupted half-way
            self._plans.pop(name, None)
        with ExitStack() as lent:
            outs = {name: lent.enter_context(contiguous_output(self._live[name])) for name in plans}
            self._feed(PlannedTensor(name, plan, outs[name]) for name, plan in plans.items())
        for device in self._devices:
            torch.get_device_module(device).synchronize(device)
        self._plans |= plans
        if self._quantized is not None:
            self._quantized.update()
        self._connect(recipe.path)
        self._recipe = recipe

    @contextmanager
    def slopes(self) -> Iterator[CandidateSlopes]:
        """Find how objectives change with the numbers of the recipe that is merged here.

        Backward passes inside add up: one for every batch of items, if need be. Their graphs must
        be made inside, too, and the model runs its own parameters there, quantized or not.
        Rounding to the model's dtype counts as none, and masks, gates and elected signs are held
        as they are.

        Yields:
            What gives the slopes once the context is left; they are of all backward passes inside.
        """
        assert self._recipe is not None, "there is a candidate"
        names = merged_names(self._recipe, self._sources)
        plans = {name: self._plans[name] for name in names if name in self._plans}
        found = PlanSlopes(plans, self._tensors)
        live = {name: self._live[name] for name in plans if name in self._live}
        scales = self._wiring.scale_leaves() if self._wiring is not None else nullcontext(())
        as_it_is = nullcontext() if self._quantized is None else self._quantized.off()
        with (
            as_it_is,
            scales as leaves,
            watched(self.model.parameters(), LiveGradients(live, found.add)),
            torch.enable_grad(),
        ):
            yield CandidateSlopes(self._recipe, self._sources, found, leaves)

    def _connect(self, path: tuple[Hop, ...]) -> None:
        """Run the layers of a path; most studies never need to look for the layers."""
        if path or self._wiring is not None:
            self._wiring = self._wiring or Wiring(self.model, self._sources, self._tensor)
            self._wiring.connect(path)


@torch.no_grad()
def _without_lent(live: Mapping[str, torch.Tensor], sources: Sources) -> dict[str, torch.Tensor]:
    """Write the parts that no merge changes, and leave them out."""
    merged = dict(live)
    for name in sources.lent_names:
        if (view := merged.pop(name, None)) is not None:
            view.copy_(sources.lent_tensor(name))
    return merged


def output_dtype(sources: Sources, dtype: Dtype | None) -> torch.dtype:
    """Resolve a recipe's dtype: the one named, else that of the anchor."""
    if dtype is not None:
        named: torch.dtype = getattr(torch, dtype)
        return named
    return model_dtype(sources.anchor, sources.names)


def load_model(
    folder: str, dtype: torch.dtype | Literal["auto"], attention: str | None = None
) -> PreTrainedModel:
    """Load a model for inference with plain transformers, without remote code.

    Args:
        folder: Local model folder.
        dtype: Dtype of its parameters; ``auto`` takes that of the config.
        attention: transformers' ``attn_implementation``; ``None``: what it takes by itself.

    Raises:
        CheckpointError: It is no causal language model, nor one of vision and language whose parts
            are known.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    from evomerge.models.structure import auto_class, class_fault

    content = read_json(Path(folder) / "config.json")
    if fault := class_fault(content):
        raise CheckpointError(f"{folder}: {fault}")
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if _is_plain(Path(folder)):
        for part in (config, config.get_text_config()):
            vars(part).pop("quantization_config", None)  # left by a training run
    kind = auto_class(content) or AutoModelForCausalLM
    told = {} if attention is None else {"attn_implementation": attention}
    model: PreTrainedModel = kind.from_pretrained(
        folder, config=config, dtype=dtype, local_files_only=True, **told
    )
    model.eval()
    return model


def _is_plain(folder: Path) -> bool:
    """Tell whether a folder holds weights that a merge can read, not those of a quantized model."""
    try:
        Checkpoint(folder)
    except CheckpointError:
        return False
    return True
