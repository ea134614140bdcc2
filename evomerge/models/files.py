"""Which files of a folder are the model, and that none of them is a link or a name that leads out.

The order is that of transformers: ``model.safetensors``, else its index, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError

__all__ = [
    "COMPANIONS",
    "INDEX",
    "SINGLE",
    "TEMPLATES",
    "companion_files",
    "file_in",
    "indexed_files",
    "read_json",
    "weight_files",
]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What a tokenizer, a generation config or a processor is made of, whatever its class.
COMPANIONS = (
    *("*.json", "*.txt", "*.model", "*.jinja"),
    *("*.bpe", "*.codes", "*.spm", "*.tiktoken", "*.tokenizer", "*.vocab"),
)
TEMPLATES = "additional_chat_templates/*.jinja"
_NO_COMPANIONS = re.compile(r".*\.index\.json|adapter_config\.json|\..*")
_OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
# What transformers reads before anything else: the files of a distributed training.
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


def file_in(folder: Path, name: str) -> Path:
    """Name a file of a folder, which need not exist.

    Links within the folder are followed, and those into the Hub's cache, of which downloads are
    made.

    Raises:
        CheckpointError: It is a link out of the folder, or its name is no name of a file in it.
    """
    relative, path = Path(name), folder / name
    if relative.is_absolute() or ".." in relative.parts or "\0" in name or not relative.parts:
        raise CheckpointError(
            f"expected the name of a file in {folder}, got {name!r}; models are read from their "
            "own folder only"
        )
    try:
        path.is_file()
        target = path.resolve()
    except (OSError, RuntimeError, UnicodeError) as err:  # too long, links in a circle, no text
        raise CheckpointError(
            f"expected a file in {folder}, got {name[:99]!r}, which leads nowhere"
        ) from err
    if not target.is_relative_to(folder.resolve()) and not _is_of_hub_cache(target):
        raise CheckpointError(
            f"expected a file in {folder}, got {name}, a link out of it to {target}; put a copy "
            "in its place"
        )
    return path


def weight_files(folder: Path, config: Mapping[str, Any]) -> dict[Path, frozenset[str]]:
    """Find the safetensors files that transformers would load, in the order it reads them.

    Args:
        folder: A model folder.
        config: Its ``config.json``, which may name another file than the usual two.

    Returns:
        By file, the tensors that an index says are in it; none where there is no index.

    Raises:
        CheckpointError: There are none, or it depends on installed packages which they are; or the
            index is not one.
    """
    _refuse_other_readings(folder)
    chosen = config.get("transformers_weights")
    names = (SINGLE, INDEX) if chosen is None else (str(chosen),)
    for name in names:
        path = file_in(folder, name)
        if path.is_file() and name.endswith(".safetensors"):
            return {path: frozenset()}
        if path.is_file() and name.endswith(".safetensors.index.json"):
            return {file_in(folder, f): held for f, held in indexed_files(path).items()}
    raise CheckpointError(
        f"expected {' or '.join(names)} in {folder}, found neither{_found_instead(folder)}; "
        "evomerge reads safetensors only: convert other formats with save_pretrained"
    )


def indexed_files(index: Path) -> dict[str, frozenset[str]]:
    """List the files that an index names, sorted, with the tensors that it says are in them.

    Raises:
        CheckpointError: It is not what transformers reads as an index.
    """
    content = read_json(index)
    held = content.get("weight_map")
    is_map = isinstance(held, dict) and all(isinstance(file, str) for file in held.values())
    if not held or not is_map or not isinstance(content.get("metadata"), dict):
        raise CheckpointError(
            f"expected an index with a weight_map from tensors to files, and metadata, in {index}, "
            "got something else; save the model again with save_pretrained"
        )
    files = sorted(set(held.values()))
    return {file: frozenset(name for name in held if held[name] == file) for file in files}


def companion_files(folder: Path) -> dict[str, Path]:
    """List what belongs to a model beside its tensors, by name in the folder.

    Left out are indices of tensors and what belongs to an adapter.

    Raises:
        CheckpointError: One of them is a link out of the folder.
    """
    found = [path for pattern in (*COMPANIONS, TEMPLATES) for path in sorted(folder.glob(pattern))]
    names = [path.relative_to(folder).as_posix() for path in found if path.is_file()]
    return {n: file_in(folder, n) for n in names if not _NO_COMPANIONS.fullmatch(n)}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        CheckpointError: It is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise CheckpointError(f"expected a JSON file at {path}: {err}") from err
    if not isinstance(content, dict):
        raise CheckpointError(f"expected a JSON object in {path}, got {type(content).__name__}")
    return content


def _is_of_hub_cache(target: Path) -> bool:
    """Recognise ``models--OWNER--NAME/blobs/HASH``."""
    repository = target.parent.parent.name
    return target.parent.name == "blobs" and repository.startswith("models--")


def _refuse_other_readings(folder: Path) -> None:
    """Refuse what one installation of transformers reads in another way than the next."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if "adapter_config.json" in names:
        raise CheckpointError(
            f"expected a model in {folder}, got one with adapter_config.json beside it, which "
            "transformers applies to the model where PEFT is installed; move the adapter into a "
            "folder of its own, and give it as {adapter: FOLDER, on: MODEL} if it is meant"
        )
    if shard := next((name for name in sorted(names) if _DISTRIBUTED.fullmatch(name)), None):
        raise CheckpointError(
            f"expected {SINGLE} or {INDEX} in {folder}, got {shard} of a distributed training, "
            "which only some versions of transformers read; save the model with save_pretrained"
        )


def _found_instead(folder: Path) -> str:
    found = sorted(path.name for pattern in _OTHER_WEIGHTS for path in folder.glob(pattern))
    return f", only {', '.join(found[:3])}{' …' if len(found) > 3 else ''}" if found else ""
