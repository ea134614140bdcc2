"""How a checkpoint is cut into safetensors files, named the way transformers reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from evomerge.merging.batches import in_batches
from evomerge.models.files import SINGLE
from evomerge.models.writer import TensorForm

__all__ = ["cut_into_shards", "index_text", "is_model_file"]

_MODEL_FILE = re.compile(r"\.?model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json|\.partial)?")


def cut_into_shards(
    forms: Mapping[str, TensorForm], shard_bytes: int
) -> dict[str, dict[str, TensorForm]]:
    """Fill files one after another, each up to a size; a larger tensor has a file of its own.

    Args:
        forms: The checkpoint's tensors; their order is kept.
        shard_bytes: Largest size of one file's tensors.

    Returns:
        Tensors by file name.
    """
    batches = in_batches(forms, lambda name: forms[name].nbytes, shard_bytes)
    shards = [{name: forms[name] for name in batch} for batch in batches] or [{}]
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    n = len(shards)
    return {f"model-{i:05d}-of-{n:05d}.safetensors": shard for i, shard in enumerate(shards, 1)}


def index_text(shards: Mapping[str, Mapping[str, TensorForm]]) -> str:
    """Write the index of several files: which tensor is where."""
    total = sum(form.nbytes for shard in shards.values() for form in shard.values())
    names = {name: file for file, shard in shards.items() for name in shard}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": names}, indent=2) + "\n"


def is_model_file(name: str) -> bool:
    """Tell whether a file name is one of a checkpoint's tensors or their index, or half of one."""
    return _MODEL_FILE.fullmatch(name) is not None
