"""Whether two models mean the same tokens by the same rows of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError
from evomerge.models.files import file_in, read_json

__all__ = ["moved_tokens", "tokens_of"]

_FILE = "tokenizer.json"


def moved_tokens(one: Path, other: Path) -> dict[str, tuple[int, int]]:
    """Find tokens that two tokenizers know by different ids.

    Tokens that were added to a finished tokenizer (chat markers, padding) are not compared: fine-
    tunes rename them freely, and hardly any text is made of them.

    Args:
        one: Model folder.
        other: Model folder.

    Returns:
        Both ids by token; empty if they agree, or if one has no ``tokenizer.json`` to look at.

    Raises:
        CheckpointError: A ``tokenizer.json`` holds no tokens, or lies elsewhere.
    """
    files = (file_in(one, _FILE), file_in(other, _FILE))
    if not all(file.is_file() for file in files):
        return {}
    if files[0].read_bytes() == files[1].read_bytes():
        return {}
    ids, other_ids = (_of(file, _ids) for file in files)
    return {
        token: (at, other_ids[token]) for token, at in ids.items() if other_ids.get(token, at) != at
    }


def tokens_of(folder: Path) -> dict[str, int]:
    """Read the id of every token of a model, added ones too; empty without a ``tokenizer.json``.

    Raises:
        CheckpointError: It holds no tokens, or lies elsewhere.
    """
    file = file_in(folder, _FILE)
    if not file.is_file():
        return {}
    return _of(file, lambda content: {**_ids(content), **_added_ids(content)})


def _of(file: Path, ids: Callable[[Mapping[str, Any]], dict[str, int]]) -> dict[str, int]:
    content = read_json(file)
    try:
        return ids(content)
    except (LookupError, TypeError, AttributeError) as err:
        raise CheckpointError(
            f"expected tokens with their ids in {file}, got something else; save the tokenizer "
            "again with save_pretrained"
        ) from err


def _added_ids(content: Mapping[str, Any]) -> dict[str, int]:
    added = content.get("added_tokens")
    return {entry["content"]: entry["id"] for entry in added} if isinstance(added, list) else {}


def _ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Read the ids by token; unigram tokenizers list them in order, with scores."""
    model = content.get("model")
    vocabulary = model.get("vocab", {}) if isinstance(model, Mapping) else {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: at for at, entry in enumerate(vocabulary)}
    names = _added_ids(content).keys()
    return {token: at for token, at in vocabulary.items() if token not in names}
