"""Which rows of which models the rows of a merged vocabulary are: matched by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import xxhash

from evomerge.models.tokenizer_choice import BASE_TOKENS, TokenOf, TokenRow

__all__ = ["RowMap", "TokenRows", "Vocabulary", "merged_rows"]

TokenRows = tuple[tuple[str, int], ...]
"""Rows by model and number whose mean is meant; none: zeros."""
_NONE = -1


@dataclass(frozen=True)
class Vocabulary:
    """What the rows of a model's embedding stand for.

    Attributes:
        tokens: Row by token.
        n_rows: How many rows there are; some, for padding, stand for no token.
    """

    tokens: Mapping[str, int]
    n_rows: int

    @cached_property
    def padding(self) -> frozenset[int]:
        """Rows that stand for no token."""
        return frozenset(range(self.n_rows)) - frozenset(self.tokens.values())


@dataclass(frozen=True, eq=False)
class RowMap:
    """Where the rows of one model come from, as a merge sees them.

    Attributes:
        own: (rows of the merge,) int64: the model's own row, or -1.
        given: Rows that it does not have, or shall not have: what stands for them.
        averaged: Rows of padding that the tokenizer's model does not have: the mean of all tokens'.
        named: (rows of the merge,) bool: which are of tokens.
        n_own: How many rows the model has.
        left_out: Tokens of the model that the merge does not have.
    """

    own: npt.NDArray[np.int64]
    given: Mapping[int, TokenRows]
    averaged: tuple[int, ...]
    named: npt.NDArray[np.bool_]
    n_own: int
    left_out: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Rows of the merge."""
        return len(self.own)

    @property
    def is_start(self) -> bool:
        """Whether the model's first rows are, in order, those of the merge."""
        return not self.given and bool((self.own == np.arange(self.n_rows)).all())

    @property
    def is_whole(self) -> bool:
        """Whether nothing changes."""
        return self.is_start and self.n_rows == self.n_own

    @cached_property
    def digest(self) -> str:
        """Names the map: 32 hexadecimal digits."""
        rest = repr((sorted(self.given.items()), self.averaged, self.n_own))
        return xxhash.xxh3_128_hexdigest(self.own.tobytes() + rest.encode())

    @property
    def summary(self) -> str:
        """What becomes of how many rows, in one line."""
        moved = int(((self.own >= 0) & (self.own != np.arange(self.n_rows))).sum())
        taken = Counter(_donor_text(rows) for rows in self.given.values())
        unused = self.n_own - len({*self.own.tolist()} - {_NONE}) - len(self.left_out)
        parts = [f"{int((self.own >= 0).sum()) - moved} rows as they are"]
        parts += [f"{moved} moved"] if moved else []
        parts += [f"{n} {donor}" for donor, n in taken.items()]
        parts += [f"{len(self.averaged)} of padding, the mean of all"] if self.averaged else []
        parts += [f"{unused} without a token in the merge cut"] if unused > 0 else []
        if self.left_out:
            names = ", ".join(map(repr, self.left_out[:3]))
            more = ", …" if len(self.left_out) > 3 else ""
            parts.append(f"{len(self.left_out)} tokens left out ({names}{more})")
        return ", ".join(parts)


def merged_rows(
    models: Mapping[str, Vocabulary],
    merge: Vocabulary,
    lender: str,
    asked: Mapping[str, TokenRow],
    pieces: Callable[[str], Sequence[str]],
) -> dict[str, RowMap]:
    """Find for every row of a merge the row of each model that has the same token.

    A row that a model lacks is the base's, so that its task vector is zero there; if the base lacks
    it, too, that of the only model that has it, or the mean of those that do; if none does, the
    mean of the token's pieces in the model that lends the tokenizer.

    Args:
        models: By name, in recipe order; the base is called ``base``.
        merge: Of the merge.
        lender: The model that its tokenizer is from.
        asked: What single tokens shall be.
        pieces: Cuts a token into others.

    Returns:
        By model.
    """
    known = _Rows(models, merge, lender, asked, pieces)
    return {name: known.of(name) for name in models}


@dataclass(frozen=True)
class _Rows:
    models: Mapping[str, Vocabulary]
    merge: Vocabulary
    lender: str
    asked: Mapping[str, TokenRow]
    pieces: Callable[[str], Sequence[str]]

    def of(self, name: str) -> RowMap:
        model, given = self.models[name], {}
        own = np.full(self.merge.n_rows, _NONE, dtype=np.int64)
        for token, row in self.merge.tokens.items():
            asked = self.asked.get(token)
            own[row] = _NONE if asked and asked.force else model.tokens.get(token, _NONE)
            if own[row] == _NONE:
                given[row] = self._stands_for(token, asked)
        averaged = []
        for row in self.merge.padding:
            if row not in self.models[self.lender].padding:
                averaged.append(row)
            elif row in model.padding:
                own[row] = row
            else:
                given[row] = ((self.lender, row),)
        left_out = tuple(token for token in model.tokens if token not in self.merge.tokens)
        named = np.zeros(self.merge.n_rows, dtype=np.bool_)
        named[list(self.merge.tokens.values())] = True
        return RowMap(own, given, tuple(sorted(averaged)), named, model.n_rows, left_out)

    def _stands_for(self, token: str, asked: TokenRow | None) -> TokenRows:
        if asked is not None and asked.source is not None and not asked.is_of_pieces:
            return self._asked(token, asked)
        holders = [(name, m.tokens[token]) for name, m in self.models.items() if token in m.tokens]
        if (asked is not None and asked.is_of_pieces) or not holders:
            return self._of_pieces(token)
        base = [holder for holder in holders if holder[0] == BASE_TOKENS]
        return tuple(base or holders)

    def _asked(self, token: str, asked: TokenRow) -> TokenRows:
        if asked.is_zero or asked.model is None:
            return ()
        model = asked.model if asked.model in self.models else next(iter(self.models))
        if isinstance(asked.source, TokenOf) and asked.source.token_id is not None:
            return ((model, asked.source.token_id),)
        spelt = asked.source.token if isinstance(asked.source, TokenOf) else token
        return ((model, self.models[model].tokens[str(spelt)]),)

    def _of_pieces(self, token: str) -> TokenRows:
        """Cut a token; one that has no pieces is the mean of all tokens."""
        lent = self.models[self.lender].tokens
        found = [lent[piece] for piece in self.pieces(token) if piece in lent and piece != token]
        return tuple((self.lender, row) for row in found or lent.values())


def _donor_text(rows: TokenRows) -> str:
    if not rows:
        return "zero"
    names = list(dict.fromkeys(name for name, _ in rows))
    if len(rows) == 1:
        return f"taken from {names[0]}"
    if len(names) == 1:
        return f"made of pieces in {names[0]}"
    return f"the mean of {', '.join(names)}"
