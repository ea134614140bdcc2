"""A recipe as a checkpoint on disk: batch by batch, and resumable shard by shard."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch

from evomerge import __version__
from evomerge.errors import CheckpointError, NonFiniteError
from evomerge.fingerprint import stamp
from evomerge.merging.ahead import MergedAhead
from evomerge.merging.candidate import output_dtype
from evomerge.merging.finite import NonFinite, count_elements
from evomerge.merging.folding import Stored, unrolled
from evomerge.merging.path_rules import PathRules
from evomerge.merging.shards import cut_into_shards, index_text, is_model_file
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import open_safetensors
from evomerge.models.configs import config_text
from evomerge.models.depth import config_along
from evomerge.models.files import COMPANIONS, INDEX, companion_files, read_json
from evomerge.models.structure import live_dtypes
from evomerge.models.writer import TensorForm, write_file, write_safetensors
from evomerge.recipe.files import dump_recipe
from evomerge.recipe.recipe import Recipe

__all__ = ["SHARD_BYTES", "write_checkpoint"]

SHARD_BYTES = 4 << 30
"""Largest size of one file, unless said otherwise."""
_BATCH_BYTES = 256 << 20  # merged at once; more would only cost memory
_REPLACED = (*COMPANIONS, "README.md")
_TOKENIZER_CONFIG = "tokenizer_config.json"
_REPLACED_KEYS = ("_name_or_path", "torch_dtype")  # the recipe says more; see ``dtype``
_CLAIM, _RECIPE = ".merge-in-progress", "recipe.yaml"
_WRITTEN = "evomerge merged the model in this folder."  # tells it from a recipe that was put there
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
        RecipeError: The recipe cannot be lowered, or no checkpoint can hold its path.
    """
    sources = Sources(
        recipe.base, recipe.experts, prompts=recipe.prompts, tokenizer=recipe.tokenizer
    )
    PathRules(sources).check(recipe.path)
    stored = unrolled(recipe, sources)
    forms = _forms(stored, sources, output_dtype(sources, recipe.dtype))
    shards = cut_into_shards(forms, shard_bytes)
    _claim(out, recipe, sources, shard_bytes)
    try:
        found = _write_shards(recipe, sources, stored, shards, out, shard_bytes, progress)
        if found and not allow_non_finite:
            raise NonFiniteError(f"expected finite numbers in the merge, got {found}; {_REMEDY}")
    except NonFiniteError:
        _discard(out)
        raise
    if len(shards) > 1:
        _write(out / INDEX, index_text(shards).encode())
    _write_companions(sources, recipe, out)
    _write(out / _RECIPE, dump_recipe(recipe, _WRITTEN, beside=out).encode())
    (out / _CLAIM).unlink()
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

    What is not merged, such as masks and indices, keeps its dtype.
    """
    anchor, merged = sources.anchor, set(sources.names)
    origins = dict.fromkeys(origin.name for origin in stored.values())
    live = live_dtypes(anchor.config, origins, dtype)

    def form(name: str) -> TensorForm:
        is_kept = name not in merged
        return TensorForm(
            anchor.dtype(name) if is_kept else live.get(name, dtype), anchor.shape(name)
        )

    return {name: form(origin.name) for name, origin in stored.items()}


def _claim(out: Path, recipe: Recipe, sources: Sources, shard_bytes: int) -> None:
    """Make sure that all shards in the folder are, or will be, of this very merge."""
    if out.resolve() in {file.resolve().parent for file in sources.files}:
        raise CheckpointError(f"expected a folder of its own for the merge, got its source {out}")
    claim = {
        "recipe": recipe.digest,
        "sources": stamp(*sources.files),
        "shard_bytes": shard_bytes,
        "evomerge": __version__,
    }
    before = read_json(out / _CLAIM) if (out / _CLAIM).exists() else {}
    if before == claim:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        _keep_what_is_no_merge(out)
        leftover = [file for file in out.iterdir() if is_model_file(file.name)]
        if leftover and before.get("recipe") not in (None, recipe.digest):
            raise CheckpointError(
                f"{out} holds an unfinished merge of recipe {before.get('recipe')}, this is "
                f"recipe {recipe.digest}; finish that one, remove the folder, or choose another"
            )
        for file in leftover:
            file.unlink()
    except OSError as err:
        raise CheckpointError(f"cannot write into {out}: {err.strerror}") from err
    _write(out / _CLAIM, json.dumps(claim).encode())


def _keep_what_is_no_merge(out: Path) -> None:
    """Make sure that the files to replace, if there are any, were written by a merge."""
    if (out / _CLAIM).exists() or _is_merge(out / _RECIPE):
        return
    names = sorted(file.name for file in out.iterdir())
    for name in names:
        if is_model_file(name) or any(fnmatch(name, pattern) for pattern in _REPLACED):
            raise CheckpointError(
                f"expected an empty folder or an earlier merge (with its {_RECIPE}), got {out}, "
                f"whose {name} no merge has written; choose another folder"
            )


def _is_merge(recipe: Path) -> bool:
    return recipe.is_file() and recipe.read_bytes().startswith(f"# {_WRITTEN}".encode())


def _write(path: Path, content: bytes) -> None:
    with write_file(path) as file:
        file.write(content)


def _write_companions(sources: Sources, recipe: Recipe, out: Path) -> None:
    """Copy everything but tensors and code from the anchor; its config learns what is different."""
    for name, file in companion_files(sources.anchor.companions).items():
        (out / name).parent.mkdir(exist_ok=True)
        _write(out / name, _portable(file))
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
    _write(out / "config.json", config_text(own).encode())


def _portable(file: Path) -> bytes:
    """Read a companion without what it says of remote code, or of folders where it was made."""
    content = file.read_bytes()
    if not file.name.endswith("config.json"):
        return content
    settings = read_json(file)
    is_tokenizer = file.name == _TOKENIZER_CONFIG
    kept = {
        key: value
        for key, value in settings.items()
        if key != "auto_map" and not (is_tokenizer and _is_place(value))
    }
    if kept == settings:
        return content
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _is_place(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("/", "~")) and "/" in value[1:]


def _discard(out: Path) -> None:
    """Remove what was written of a merge that shall not be."""
    for file in out.iterdir():
        if is_model_file(file.name):
            file.unlink()
    (out / _CLAIM).unlink()
