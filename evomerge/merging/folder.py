"""A recipe as a checkpoint on disk, written shard by shard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from evomerge.kernels.eager import merge_eager
from evomerge.merging.candidate import output_dtype
from evomerge.merging.lowering import lower
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe

__all__ = ["write_checkpoint"]

_SHARD_BYTES = 4 << 30
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja")  # config, tokenizer, generation config
_NOT_COPIED = ("model.safetensors.index.json",)


def write_checkpoint(
    recipe: Recipe,
    out: Path,
    *,
    shard_bytes: int = _SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Materialise a recipe as an ordinary Hugging Face folder.

    Weights equal those of the live candidate byte for byte. Memory: one shard.

    Args:
        recipe: What to merge.
        out: Folder to write; created if needed.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (tensors done, tensors in all).

    Raises:
        CheckpointError: A model is missing, does not fit or is not finite.
        RecipeError: The recipe cannot be lowered.
    """
    sources = Sources(recipe.base, recipe.experts)
    sources.check_finite()
    out.mkdir(parents=True, exist_ok=True)
    dtype = output_dtype(sources, recipe.dtype)
    writer = _ShardWriter(out, shard_bytes)
    for done, (name, plan) in enumerate(lower(recipe, sources), start=1):
        base, experts = sources.tensors(name)
        merged = torch.empty(sources.anchor.shape(name), dtype=dtype)
        merge_eager(plan, base, experts, merged)
        writer.add(name, merged)
        if progress is not None:
            progress(done, len(sources.anchor.names))
    writer.close()
    _copy_companions(sources.anchor.folder, out, dtype)


class _ShardWriter:
    """Collects tensors and writes a file whenever the shard is full."""

    def __init__(self, out: Path, shard_bytes: int) -> None:
        self._out, self._limit = out, shard_bytes
        self._pending: dict[str, torch.Tensor] = {}
        self._shards: list[tuple[Path, list[str]]] = []
        self._total = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        size = sum(t.nbytes for t in self._pending.values())
        if self._pending and size + tensor.nbytes > self._limit:
            self._flush()
        self._pending[name] = tensor
        self._total += tensor.nbytes

    def close(self) -> None:
        self._flush()
        if len(self._shards) == 1:
            self._shards[0][0].replace(self._out / "model.safetensors")
            return
        index = {}
        for number, (path, names) in enumerate(self._shards, start=1):
            final = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            path.replace(self._out / final)
            index.update(dict.fromkeys(names, final))
        content = {"metadata": {"total_size": self._total}, "weight_map": index}
        (self._out / _NOT_COPIED[0]).write_text(json.dumps(content, indent=2))

    def _flush(self) -> None:
        path = self._out / f".shard-{len(self._shards)}.tmp"
        save_file(self._pending, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors writes through a private temporary file
        self._shards.append((path, list(self._pending)))
        self._pending = {}


def _copy_companions(source: Path, out: Path, dtype: torch.dtype) -> None:
    for pattern in _COMPANIONS:
        for file in source.glob(pattern):
            if file.name not in _NOT_COPIED:
                shutil.copyfile(file, out / file.name)
    config = json.loads((out / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
