"""Whether two models mean the same tokens by the same rows of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
        CheckpointError: A ``tokenizer.json`` holds no JSON object, or lies elsewhere.
    """
    files = (file_in(one, _FILE), file_in(other, _FILE))
    if not all(file.is_file() for file in files):
        return {}
    if files[0].read_bytes() == files[1].read_bytes():
        return {}
    ids, other_ids = (_ids(read_json(file)) for file in files)
    return {
        token: (at, other_ids[token]) for token, at in ids.items() if other_ids.get(token, at) != at
    }


def tokens_of(folder: Path) -> dict[str, int]:
    """Read the id of every token of a model, added ones too; empty without a ``tokenizer.json``.

    Raises:
        CheckpointError: It holds no JSON object, or lies elsewhere.
    """
    file = file_in(folder, _FILE)
    if not file.is_file():
        return {}
    content = read_json(file)
    added = content.get("added_tokens")
    later = {entry["content"]: entry["id"] for entry in added} if isinstance(added, list) else {}
    return {**_ids(content), **later}


def _ids(content: Mapping[str, object]) -> dict[str, int]:
    """Read the ids by token; unigram tokenizers list them in order, with scores."""
    model, added = content.get("model"), content.get("added_tokens")
    vocabulary = model.get("vocab", {}) if isinstance(model, Mapping) else {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: at for at, entry in enumerate(vocabulary)}
    names = {entry["content"] for entry in added} if isinstance(added, list) else set()
    return {token: at for token, at in vocabulary.items() if token not in names}
