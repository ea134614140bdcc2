"""The merge of adapters as one adapter, where that is exact: factors side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from evomerge.errors import CheckpointError, Fault, RecipeError
from evomerge.kernels.plan import Sum, TensorPlan
from evomerge.merging.lowering import lower_tensor
from evomerge.merging.sources import Sources
from evomerge.models.adapter import Adapter
from evomerge.models.expert import open_expert
from evomerge.models.reference import AdapterRef
from evomerge.recipe.files import RECIPE_FILE, dump_recipe
from evomerge.recipe.recipe import Recipe

__all__ = ["write_adapter"]

_INSTEAD = "--format hf writes the whole model"


def write_adapter(recipe: Recipe, out: Path) -> int:
    """Write the merge of LoRA adapters on one base as a PEFT folder.

    A merge that adds task vectors, each times a number, is Σ cᵢ sᵢ Bᵢ Aᵢ on top of its base: the
    product of all Bᵢ beside one another, with the numbers, and all Aᵢ below one another. Its rank
    is the sum of theirs.

    Args:
        recipe: Its experts are adapters on its base.
        out: Folder to write; created if needed.

    Returns:
        The rank.

    Raises:
        RecipeError: It merges other things than adapters on its base, or in another way, or not.
        CheckpointError: A model cannot be opened, or the folder cannot be written.
    """
    recipe.require_merge()
    if faults := list(_faults(recipe)):
        raise RecipeError(*faults)
    sources = Sources.of(recipe)
    assert sources.base is not None, "or there were faults"
    adapters = {name: _opened(reference, sources) for name, reference in recipe.experts.items()}
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted({name for adapter in adapters.values() for name in adapter.low_rank}):
        plan = lower_tensor(recipe, sources, name)
        if not _is_sum(plan):
            raise RecipeError(
                f"expected task vectors that are added, each times a number; {name} is merged in "
                f"another way, whose result has no low rank; {_INSTEAD}"
            )
        tensors |= _stacked(name, plan, list(adapters.values()))
    rank = max(tensor.shape[0] for key, tensor in tensors.items() if "lora_A" in key)
    _write(out, _padded(tensors, rank), _config(recipe, tensors, rank), recipe)
    return rank


def _faults(recipe: Recipe) -> Iterator[Fault]:
    if recipe.path:
        yield Fault(("path",), f"expected a merge of adapters, got a path; {_INSTEAD}")
    if recipe.parts is not None:
        yield Fault(("parts",), f"expected all parts to be merged, got some lent; {_INSTEAD}")
    for name, reference in recipe.experts.items():
        if not isinstance(reference, AdapterRef) or reference.on != recipe.base:
            yield Fault(
                ("experts", name),
                f"expected an adapter on {recipe.base}, got {reference}",
                _INSTEAD,
            )


def _opened(reference: object, sources: Sources) -> Adapter:
    assert isinstance(reference, AdapterRef), "or there were faults"
    adapter = open_expert(reference, sources.base)
    assert isinstance(adapter, Adapter), "what a reference to an adapter opens"
    if adapter.whole:
        raise CheckpointError(
            f"expected factors only in {reference.adapter}, got whole tensors, such as "
            f"{min(adapter.whole)}; {_INSTEAD}"
        )
    return adapter


def _is_sum(plan: TensorPlan) -> bool:
    apart = (plan.sparse, plan.gate, plan.row_scale, plan.column_scale)
    is_plain = all(part is None for part in apart) and not plan.normalize_by_mask
    added = plan.combine == Sum() and plan.delta and plan.base_coefficient == 1 and not plan.offset
    return is_plain and added


def _stacked(name: str, plan: TensorPlan, adapters: list[Adapter]) -> dict[str, torch.Tensor]:
    """Lay the factors of one tensor side by side: A (Σ ranks, in) and B (out, Σ ranks)."""
    having = [
        (plan.scale * c, adapter)
        for c, adapter in zip(plan.coefficients, adapters, strict=True)
        if name in adapter.low_rank
    ]
    factors = [(c, *adapter.factors(name)) for c, adapter in having]
    module = having[0][1].module(name)
    return {
        f"{module}.lora_A.weight": torch.cat([a for _, a, _ in factors]).float(),
        f"{module}.lora_B.weight": torch.cat([c * b for c, _, b in factors], dim=1).float(),
    }


def _padded(tensors: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """Fill up with zeros to one rank, where an adapter leaves a tensor alone."""
    padded = {}
    for key, tensor in tensors.items():
        missing = rank - tensor.shape["lora_B" in key]
        room = (0, missing) if "lora_B" in key else (0, 0, 0, missing)
        padded[key] = torch.nn.functional.pad(tensor, room).contiguous()
    return padded


def _config(recipe: Recipe, tensors: Mapping[str, torch.Tensor], rank: int) -> dict[str, object]:
    modules = {key.partition(".lora_")[0].removeprefix("base_model.model.") for key in tensors}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": recipe.base,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _write(
    out: Path, tensors: dict[str, torch.Tensor], config: dict[str, object], recipe: Recipe
) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise CheckpointError(f"expected a new or empty folder for an adapter, got {out}")
        save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=2) + "\n"
        (out / "adapter_config.json").write_text(text, encoding="utf-8")
        (out / RECIPE_FILE).write_text(dump_recipe(recipe, beside=out), encoding="utf-8")
    except OSError as err:
        raise CheckpointError(f"{out} cannot be written: {err.strerror or err}") from err
