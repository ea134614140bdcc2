"""Models with their units permuted at random."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from evomerge.alignment.placing import placed
from evomerge.arrays import IntArray
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.units import STREAM, units_of

FAMILIES = (
    *("llama", "llama_tied", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2"),
    *("gpt2", "mixtral", "qwen3_moe"),
)


def grouped_heads(family: str) -> dict[str, int]:
    """Settings of four heads in two sets that share keys, where a family has that."""
    own = {} if family == "gpt2" else {"num_key_value_heads": 2, "head_dim": 4}
    return {"num_attention_heads": 4, **own}


def save_permuted(
    model: Path, out: Path, seed: int, *, with_stream: bool = True
) -> dict[str, IntArray]:
    """Write a model anew with every group of its units in random order.

    Returns:
        By axis: the position in the model of what is in each position of the copy.
    """
    units = units_of(Checkpoint(model))
    groups = [g for g in units.groups if with_stream or STREAM not in g.members]
    orders = {axis: np.arange(units.sizes[axis]) for g in groups for axis in g.members}
    draws = np.random.default_rng(seed)
    for group in groups:
        drawn = np.roll(draws.permutation(group.n), 1) if group.n > 2 else np.array([1, 0])
        for axis, members in group.members.items():
            orders[axis][members] = orders[axis][members[drawn]]
    shutil.copytree(model, out)
    tensors = load_file(model / "model.safetensors")
    for name, axes in units.axes.items():
        if name in tensors:
            maps = [torch.from_numpy(orders[a]) if a in orders else None for a in axes]
            tensors[name] = placed(tensors[name], maps).contiguous()
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return orders
