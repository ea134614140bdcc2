"""Which rows of a model stand for the tokens of another vocabulary: matched by what they spell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from evomerge.models.files import file_in, read_json
from evomerge.models.rows import Vocabulary
from evomerge.models.vocabulary import tokens_of

__all__ = ["SpeltVocabulary", "TokenMatch", "match_tokens", "spelt_vocabulary"]

_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_NONE = -1

_Spelling = tuple[bool, bytes]  # whether it is special, and its text


@dataclass(frozen=True, eq=False)
class SpeltVocabulary(Vocabulary):
    """A vocabulary whose tokens can be compared with those of other kinds of tokenizers.

    Attributes:
        spellings: By token: whether it is special, and the bytes that it stands for.
        roles: Token by role, as ``eos_token``.
    """

    spellings: Mapping[str, _Spelling]
    roles: Mapping[str, str]

    @cached_property
    def rows_by_spelling(self) -> Mapping[_Spelling, int]:
        """Find rows by what they spell; of several tokens, the shortest by name."""
        longest_first = sorted(self.tokens, key=lambda t: (-len(t), -self.tokens[t]))
        return {self.spellings[token]: self.tokens[token] for token in longest_first}

    def row_like(self, token: str, spelling: _Spelling) -> int | None:
        """Find the row of a token of another vocabulary: of that very token, if it is the same."""
        if self.spellings.get(token) == spelling:
            return self.tokens[token]
        return self.rows_by_spelling.get(spelling)


@dataclass(frozen=True, eq=False)
class TokenMatch:
    """Which rows of a model stand for the tokens of another vocabulary, the donor's.

    Attributes:
        n_rows: Of the donor.
        shared: (2, n) int64: rows of the donor, and of the model, that spell the same.
        by_role: (2, n) int64: rows of special tokens that only have the same role.
        missing: (n,) int64: rows of the donor whose tokens the model does not have.
        padding: (n,) int64: rows of the donor that stand for no token.
        kept: (n,) int64: those of them that are padding in the model, too.
        roles: The model's token by the donor's, for ``by_role``.
    """

    n_rows: int
    shared: torch.Tensor
    by_role: torch.Tensor
    missing: torch.Tensor
    padding: torch.Tensor
    kept: torch.Tensor
    roles: Mapping[str, str]


def spelt_vocabulary(folder: Path, n_rows: int) -> SpeltVocabulary:
    """Read a vocabulary.

    Args:
        folder: Holds ``tokenizer.json``, and ``tokenizer_config.json`` if roles are known.
        n_rows: Of the embedding; tokens beyond it are left out.

    Raises:
        CheckpointError: A ``tokenizer.json`` holds no tokens, or lies elsewhere.
    """
    tokens = {token: row for token, row in tokens_of(folder).items() if row < n_rows}
    content = read_json(file_in(folder, "tokenizer.json")) if tokens else {}
    added = {token["content"]: bool(token.get("special")) for token in _added(content)}
    text_of = _reader(content)
    spellings = {
        token: (added[token], token.encode()) if token in added else (False, text_of(token))
        for token in tokens
    }
    return SpeltVocabulary(tokens, n_rows, spellings, _roles(folder, tokens))


def match_tokens(donor: SpeltVocabulary, model: SpeltVocabulary) -> TokenMatch:
    """Match by spelling, then special tokens by role.

    Special tokens match special tokens only: ``<s>`` may be a piece of HTML elsewhere.
    """
    shared, roles = {}, {}
    for token, row in donor.tokens.items():
        if (own := model.row_like(token, donor.spellings[token])) is not None:
            shared[row] = own
    for role, token in donor.roles.items():
        if donor.tokens[token] not in shared and role in model.roles:
            roles.setdefault(token, model.roles[role])
    by_role = {donor.tokens[token]: model.tokens[own] for token, own in roles.items()}
    missing = set(donor.tokens.values()) - shared.keys() - by_role.keys()
    return TokenMatch(
        donor.n_rows,
        _pairs(shared),
        _pairs(by_role),
        torch.tensor(sorted(missing), dtype=torch.int64),
        torch.tensor(sorted(donor.padding), dtype=torch.int64),
        torch.tensor(sorted(donor.padding & model.padding), dtype=torch.int64),
        roles,
    )


def _pairs(rows: Mapping[int, int]) -> torch.Tensor:
    return torch.tensor(sorted(rows.items()), dtype=torch.int64).reshape(-1, 2).T


def _added(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return content.get("added_tokens") or []


def _roles(folder: Path, tokens: Mapping[str, int]) -> dict[str, str]:
    file = file_in(folder, "tokenizer_config.json")
    settings = read_json(file) if file.is_file() else {}
    found = {role: settings.get(role) for role in _ROLES}
    named = {role: t.get("content") if isinstance(t, Mapping) else t for role, t in found.items()}
    return {role: token for role, token in named.items() if token in tokens}


def _reader(content: Mapping[str, Any]) -> Callable[[str], bytes]:
    """Tell how a kind of tokenizer spells text in the names of its tokens."""
    parts = [*_parts(content.get("decoder")), *_parts(content.get("pre_tokenizer"))]
    if any(part.get("type") == "ByteLevel" for part in parts):
        return _of_bytes
    spaces = tuple(filter(None, map(_space, parts)))
    has_bytes = bool((content.get("model") or {}).get("byte_fallback"))

    def text_of(token: str) -> bytes:
        if has_bytes and (byte := _BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for space in spaces:
            token = token.replace(space, " ")
        return token.encode()

    return text_of


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    """List a step of a tokenizer and the steps inside it."""
    if isinstance(part, Mapping):
        yield part
        for inner in (*part.get("decoders", ()), *part.get("pretokenizers", ())):
            yield from _parts(inner)


def _space(part: Mapping[str, Any]) -> str | None:
    """Find what a step writes instead of a space."""
    if part.get("type") == "Metaspace":
        return str(part["replacement"])
    if part.get("type") == "Replace" and part.get("content") == " ":
        pattern = part.get("pattern")
        return pattern.get("String") if isinstance(pattern, Mapping) else None
    return None


def _alphabet() -> dict[str, int]:
    """Bytes by the characters of byte-level tokenizers: printable ones stand for themselves."""
    plain = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
    others = (byte for byte in range(0x100) if byte not in plain)
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTES = _alphabet()


def _of_bytes(token: str) -> bytes:
    if all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token)
    return token.encode()
