"""A recipe as a checkpoint on disk: batch by batch, and resumable shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from evomerge.errors import NonFiniteError
from evomerge.merging.ahead import MergedAhead
from evomerge.merging.candidate import output_dtype
from evomerge.merging.finite import NonFinite, count_elements
from evomerge.merging.folding import Stored, unrolled
from evomerge.merging.output import WRITTEN, claim_folder, copy_companions, discard, finish, put
from evomerge.merging.path_rules import PathRules
from evomerge.merging.shards import cut_into_shards, index_text
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import open_safetensors
from evomerge.models.configs import config_text
from evomerge.models.depth import config_along
from evomerge.models.files import INDEX
from evomerge.models.structure import live_dtypes
from evomerge.models.writer import TensorForm, write_safetensors
from evomerge.recipe.files import dump_recipe
from evomerge.recipe.recipe import Recipe

__all__ = ["SHARD_BYTES", "write_checkpoint"]

SHARD_BYTES = 4 << 30
"""Largest size of one file, unless said otherwise."""
_BATCH_BYTES = 256 << 20  # merged at once; more would only cost memory
_REPLACED_KEYS = ("_name_or_path", "torch_dtype")  # the recipe says more; see ``dtype``
_REMEDY = (
    "choose dtype bfloat16 or float32, or smaller coefficients; or keep them with "
    "--allow-non-finite"
)


def write_checkpoint(
    recipe: Recipe,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
    allow_non_finite: bool = False,
) -> NonFinite:
    """Materialise a recipe as an ordinary Hugging Face folder.

    Weights equal those of the live candidate byte for byte. A path is written out: its hops are the
    layers of the new model, scales are folded into them (``merging.folding``). Memory: at most half
    a shard at once, or what one larger tensor needs. A merge that was interrupted, even by ``kill
    -9``, continues after its last complete shard.

    Args:
        recipe: What to merge.
        out: Folder to write; created if needed. An earlier merge in it is replaced. The recipe is
            written beside the model.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (tensors done, tensors in all).
        allow_non_finite: Keep NaN and infinity that the merge makes, e.g. by leaving the range of
            float16. Those of its models are never merged.

    Returns:
        What is not finite in the folder.

    Raises:
        NonFiniteError: The merge, or one of its models, is not finite; no tensors are left behind.
        CheckpointError: A model is missing or does not fit; or the folder cannot be written, is
            one of the sources, or holds a model that no merge has written, or an unfinished merge
            of another recipe.
        RecipeError: The recipe cannot be lowered, or no checkpoint can hold its path, or it is an
            ensemble.
    """
    recipe.require_merge()
    sources = Sources.of(recipe)
    PathRules(sources).check(recipe.path)
    stored = unrolled(recipe, sources)
    forms = _forms(stored, sources, output_dtype(sources, recipe.dtype))
    shards = cut_into_shards(forms, shard_bytes)
    claim_folder(out, recipe.digest, sources.files, shard_bytes)
    try:
        found = _write_shards(recipe, sources, stored, shards, out, shard_bytes, progress)
        if found and not allow_non_finite:
            raise NonFiniteError(f"expected finite numbers in the merge, got {found}; {_REMEDY}")
    except NonFiniteError:
        discard(out)
        raise
    if len(shards) > 1:
        put(out / INDEX, index_text(shards).encode())
    _write_companions(sources, recipe, out)
    finish(out, dump_recipe(recipe, WRITTEN, beside=out))
    return found


def _write_shards(
    recipe: Recipe,
    sources: Sources,
    stored: Mapping[str, Stored],
    shards: Mapping[str, Mapping[str, TensorForm]],
    out: Path,
    shard_bytes: int,
    progress: Callable[[int, int], None] | None,
) -> NonFinite:
    """Write the files that are not there yet; count what is not finite in all of them."""
    counts: dict[str, int] = {}
    n_tensors = sum(map(len, shards.values()))
    for file, shard in shards.items():
        if (out / file).is_file():  # of the merge that this one continues
            kept = open_safetensors(out / file)
            counts.update((name, count_elements(kept.get_tensor(name))) for name in shard)
            continue
        parts = {name: stored[name] for name in shard}
        batch_bytes = min(shard_bytes // 2, _BATCH_BYTES)
        merged = MergedAhead(recipe, sources, parts, shard, batch_bytes)
        counted = _Counted(merged, counts, n_tensors, progress)
        write_safetensors(out / file, shard, counted.tensor)
    return NonFinite.of(counts)


@dataclass(frozen=True)
class _Counted:
    """Hands out the tensors of a shard, and counts what is not finite in each.

    Attributes:
        merged: The shard's tensors.
        counts: By name, of all tensors so far; each adds its own.
        n_tensors: In all shards.
        progress: Called with the tensors so far and those in all.
    """

    merged: MergedAhead
    counts: dict[str, int]
    n_tensors: int
    progress: Callable[[int, int], None] | None

    def tensor(self, name: str) -> torch.Tensor:
        tensor = self.merged.tensor(name)
        self.counts[name] = count_elements(tensor)
        if self.progress is not None:
            self.progress(len(self.counts), self.n_tensors)
        return tensor


def _forms(
    stored: Mapping[str, Stored], sources: Sources, dtype: torch.dtype
) -> dict[str, TensorForm]:
    """Say what the merged checkpoint holds: every tensor in the dtype of the live model.

    What the model does not compute with, such as masks and indices, keeps its dtype.
    """
    anchor, merged = sources.anchor, {*sources.names, *sources.lent_names}
    origins = dict.fromkeys(origin.name for origin in stored.values())
    live = live_dtypes(anchor.config, origins, dtype)

    def form(name: str) -> TensorForm:
        is_kept = name not in merged
        return TensorForm(
            anchor.dtype(name) if is_kept else live.get(name, dtype), anchor.shape(name)
        )

    return {name: form(origin.name) for name, origin in stored.items()}


def _write_companions(sources: Sources, recipe: Recipe, out: Path) -> None:
    """Copy everything but tensors and code from the anchor; its config learns what is different."""
    copy_companions(sources.anchor.companions, out)
    config = sources.anchor.config
    if recipe.path:
        config = config_along(config, [hop.layer for hop in recipe.path])
    changed: dict[str, object] = {
        "dtype": str(output_dtype(sources, recipe.dtype)).removeprefix("torch."),
        **({"tie_word_embeddings": False} if sources.is_untied else {}),
    }
    own = {key: value for key, value in config.items() if key not in _REPLACED_KEYS} | changed
    if isinstance(text := own.get("text_config"), Mapping):
        kept = {key: value for key, value in text.items() if key not in _REPLACED_KEYS}
        own["text_config"] = kept | changed
    put(out / "config.json", config_text(own).encode())
