"""Which tokens a model knows, and by which ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError
from evomerge.models.files import file_in, read_json

__all__ = ["moved_tokens", "tokens_of"]

_FILE = "tokenizer.json"
_MOST = 2**24  # ids; tokenizers hold a place for every id up to the largest, and die of 2**32


def moved_tokens(one: Path, other: Path) -> dict[str, tuple[int, int]]:
    """Find tokens that two tokenizers know by different ids; both ids by token.

    Tokens that were added to a finished tokenizer (chat markers, padding) are not compared: fine-
    tunes rename them freely, and hardly any text is made of them. Nor is a model without a
    ``tokenizer.json``.

    Raises:
        CheckpointError: A ``tokenizer.json`` holds no tokens, or lies elsewhere.
    """
    ids, other_ids = (_tokens(folder, _ids) for folder in (one, other))
    return {
        token: (at, other_ids[token]) for token, at in ids.items() if other_ids.get(token, at) != at
    }


def tokens_of(folder: Path) -> dict[str, int]:
    """Read the id of every token of a model, added ones too; empty without a ``tokenizer.json``.

    Raises:
        CheckpointError: It holds no tokens, or lies elsewhere.
    """
    return _tokens(folder, lambda content: {**_ids(content), **_added_ids(content)})


def _tokens(folder: Path, read: Callable[[Mapping[str, Any]], dict[str, int]]) -> dict[str, int]:
    file = file_in(folder, _FILE)
    if not file.is_file():
        return {}
    content = read_json(file)
    try:
        return read(content)
    except (LookupError, TypeError, AttributeError) as err:
        raise CheckpointError(
            f"expected tokens with their ids, of {_MOST:,} at most, in {file}, got something else; "
            "save the tokenizer again with save_pretrained"
        ) from err


def _added_ids(content: Mapping[str, Any]) -> dict[str, int]:
    added = content.get("added_tokens")
    found = {one["content"]: one["id"] for one in added} if isinstance(added, list) else {}
    return _numbered(found)


def _ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Read the ids by token; unigram tokenizers list them in order, with scores."""
    model = content.get("model")
    vocabulary = model.get("vocab", {}) if isinstance(model, Mapping) else {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: at for at, entry in enumerate(vocabulary)}
    return _numbered(dict(vocabulary))


def _numbered(ids: dict[str, int]) -> dict[str, int]:
    if not all(type(at) is int and 0 <= at < _MOST for at in ids.values()):
        raise TypeError("ids are numbers of rows")
    return ids
