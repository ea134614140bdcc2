"""The folder that a merge is written into: claimed, continued, never another one's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evomerge import __version__
from evomerge.errors import CheckpointError, NonFiniteError
from evomerge.fingerprint import stamp
from evomerge.merging.finite import count_elements
from evomerge.merging.shards import cut_into_shards, index_text, is_model_file
from evomerge.models.configs import config_text
from evomerge.models.files import COMPANIONS, INDEX, TEMPLATES, companion_files, read_json
from evomerge.models.writer import TensorForm, write_file, write_safetensors
from evomerge.recipe.files import RECIPE_FILE

__all__ = [
    "WRITTEN",
    "ModelFolder",
    "claim_folder",
    "copy_companions",
    "discard",
    "finish",
    "put",
    "remove_merge",
    "write_model",
]

WRITTEN = "evomerge merged the model in this folder."
"""First line of the recipe beside a merge: tells it from a recipe that was put there."""
_CARD = "README.md"
_REPLACED = (*COMPANIONS, _CARD)
# Of these what transformers loads whatever a model's other files say, and the model's card.
_LOADED = (
    *("config.json", "generation_config.json", "*processor_config.json", "*tokenizer_config.json"),
    *("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "normalizer.json", "*.jinja", TEMPLATES),
    *("*.model", "*.bpe", "*.codes", "*.spm", "*.tiktoken", "*.tokenizer", "*.vocab", _CARD),
)
# What experts come back from: a folder of numbered files, and their list.
_KEPT = ("masks", "twins")
_TOKENIZER_CONFIG = "tokenizer_config.json"
_CLAIM = ".merge-in-progress"


def claim_folder(out: Path, digest: str, sources: Iterable[Path], shard_bytes: int) -> None:
    """Make sure that all shards in a folder are, or will be, of one very merge.

    Args:
        out: The folder; created if needed. What an earlier merge left in it is removed.
        digest: Of the recipe.
        sources: All files that the merge depends on.
        shard_bytes: Largest size of one file.

    Raises:
        CheckpointError: It cannot be written, is one of the sources, or holds a model that no merge
            has written, or an unfinished merge of another recipe.
    """
    sources = tuple(sources)
    if out.resolve() in {file.resolve().parent for file in sources}:
        raise CheckpointError(f"expected a folder of its own for the merge, got its source {out}")
    claim = {
        "recipe": digest,
        "sources": stamp(*sources),
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
        if leftover and before.get("recipe") not in (None, digest):
            raise CheckpointError(
                f"{out} holds an unfinished merge of recipe {before.get('recipe')}, this is "
                f"recipe {digest}; finish that one, remove the folder, or choose another"
            )
        if _has_merge(out):
            _remove_model(out)
    except OSError as err:
        raise CheckpointError(f"cannot write into {out}: {err.strerror}") from err
    put(out / _CLAIM, json.dumps(claim).encode())


def _keep_what_is_no_merge(out: Path) -> None:
    """Make sure that the files to replace, if there are any, were written by a merge."""
    if _has_merge(out):
        return
    names = sorted(file.name for file in out.iterdir())
    for name in names:
        if is_model_file(name) or any(fnmatch(name, pattern) for pattern in _REPLACED):
            raise CheckpointError(
                f"expected an empty folder or an earlier merge (with its {RECIPE_FILE}), "
                f"got {out}, whose {name} no merge has written; choose another folder"
            )


def _has_merge(out: Path) -> bool:
    recipe = out / RECIPE_FILE
    is_whole = recipe.is_file() and recipe.read_bytes().startswith(f"# {WRITTEN}".encode())
    return is_whole or (out / _CLAIM).exists()


def _remove_model(out: Path) -> None:
    """Remove what transformers would load of an earlier merge, and what was kept with it."""
    found = [file for file in out.iterdir() if is_model_file(file.name)]
    found += [file for pattern in _LOADED for file in out.glob(pattern)]
    for kept in _KEPT:
        found += [out / f"{kept}.yaml", *out.glob(f"{kept}/[0-9][0-9][0-9].safetensors")]
    for file in {*found, out / "twins" / "router.safetensors"}:
        file.unlink(missing_ok=True)
    for folder in (*_KEPT, Path(TEMPLATES).parent):
        with suppress(OSError):  # it is not there, or holds what is somebody's own
            (out / folder).rmdir()


def remove_merge(out: Path) -> None:
    """Remove a whole merge, if there is one: the folder, too, unless it holds something else."""
    if not _has_merge(out):
        return
    _remove_model(out)
    for name in (_CLAIM, RECIPE_FILE):
        (out / name).unlink(missing_ok=True)
    with suppress(OSError):
        out.rmdir()


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """What a folder with a model of our making holds.

    Attributes:
        forms: All tensors, in the order in which they fill the files.
        tensor: Makes one of them; called once for each name that is written.
        companions: Folder with the tokenizer and what goes with it.
        config: The model's.
        recipe: What was done, in YAML; begins with ``WRITTEN``.
        hint: What to do about a tensor that is not finite.
    """

    forms: Mapping[str, TensorForm]
    tensor: Callable[[str], torch.Tensor]
    companions: Path
    config: Mapping[str, Any]
    recipe: str
    hint: str


def write_model(
    out: Path,
    model: ModelFolder,
    shard_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write what is not there yet of a model, and give up the claim.

    Args:
        out: A claimed folder.
        model: What it is to hold.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (tensors done, tensors in all), after each file.

    Raises:
        NonFiniteError: A tensor holds NaN or infinity; no tensors are left behind.
        CheckpointError: A file cannot be written.
    """
    shards = cut_into_shards(model.forms, shard_bytes)
    done = 0
    for name, shard in shards.items():
        if not (out / name).is_file():
            try:
                write_safetensors(out / name, shard, partial(_finite, model))
            except NonFiniteError:
                discard(out)
                raise
        done += len(shard)
        if progress is not None:
            progress(done, len(model.forms))
    if len(shards) > 1:
        put(out / INDEX, index_text(shards).encode())
    copy_companions(model.companions, out)
    put(out / "config.json", config_text(model.config).encode())
    finish(out, model.recipe)


def _finite(model: ModelFolder, name: str) -> torch.Tensor:
    found = model.tensor(name)
    if bad := count_elements(found):
        raise NonFiniteError(
            f"expected finite numbers in the model, got {bad} NaN or infinite in {name}; "
            f"{model.hint}"
        )
    return found


def copy_companions(source: Path, out: Path) -> None:
    """Copy everything but tensors and code of a model, without what it says of code and places."""
    for name, file in companion_files(source).items():
        (out / name).parent.mkdir(exist_ok=True)
        put(out / name, _portable(file))


def finish(out: Path, recipe: str) -> None:
    """Write the recipe beside a complete merge, and give up the claim.

    Args:
        out: The folder.
        recipe: YAML whose first line is a comment with ``WRITTEN``.
    """
    put(out / RECIPE_FILE, recipe.encode())
    (out / _CLAIM).unlink()


def put(path: Path, content: bytes) -> None:
    """Write a file that has its name only when it is complete."""
    with write_file(path) as file:
        file.write(content)


def discard(out: Path) -> None:
    """Remove what was written of a merge that shall not be."""
    for file in out.iterdir():
        if is_model_file(file.name):
            file.unlink()
    (out / _CLAIM).unlink()


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
