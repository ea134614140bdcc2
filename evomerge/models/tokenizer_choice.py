"""Which tokenizer a merge has, and where the rows of single tokens come from: the key itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from evomerge.errors import Fault, brief, did_you_mean

__all__ = ["BASE_TOKENS", "TokenOf", "TokenRow", "TokenizerChoice"]

BASE_TOKENS = "base"
"""Names the base, or the first expert of recipes without one."""
_UNION, _ZERO, _PIECES, _AUTO = "union", "zero", "pieces", "auto"
_OF_MODEL = "model:"


@dataclass(frozen=True)
class TokenOf:
    """The row of a token in one model.

    Attributes:
        model: ``base`` or an expert's name.
        token: The token as that model's tokenizer spells it.
        token_id: Instead of ``token``, the row's number.
    """

    model: str
    token: str | None = None
    token_id: Annotated[int | None, Field(ge=0)] = None

    __pydantic_config__ = ConfigDict(extra="forbid")


def _read_source(value: object) -> object:
    if value is None or isinstance(value, str | TokenOf):
        return value
    if isinstance(value, Mapping) and ("token" in value) != ("token_id" in value):
        return value
    raise ValueError(
        "expected base, model:NAME, zero, pieces, {model: NAME, token: TOKEN} or {model: NAME, "
        f"token_id: N}}, got {brief(value)}"
    )


@dataclass(frozen=True)
class TokenRow:
    """Where one token's row comes from.

    Attributes:
        source: ``base``, ``model:NAME``, ``zero``, ``pieces`` (the mean of what the token would be
            cut into), or the row of another token. Absent: as of any other token.
        force: Whether it is so in all models, also in those that have the token.
    """

    source: Annotated[str | TokenOf | None, BeforeValidator(_read_source)] = None
    force: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def model(self) -> str | None:
        """The model that it names; ``None``: none."""
        if isinstance(self.source, TokenOf):
            return self.source.model
        return _named(self.source)

    @property
    def is_zero(self) -> bool:
        """Whether it is all zeros."""
        return self.source == _ZERO

    @property
    def is_of_pieces(self) -> bool:
        """Whether it is made of the token's pieces."""
        return self.source == _PIECES


@dataclass(frozen=True)
class TokenizerChoice:
    """Which tokenizer a merge has.

    Attributes:
        source: ``base``, ``model:NAME``, or ``union``: the base's with the tokens of all experts.
        tokens: Where rows of single tokens come from, by token; a token that the tokenizer does
            not have is added to it.
        pad_to_multiple_of: The number of rows is rounded up to a multiple of this.
        chat_template: Whose chat template, special tokens and generation settings the merge has:
            ``base``, an expert's name, or ``auto``: those that most models have. Absent: those of
            the model that the tokenizer is from, for a union the base.
    """

    source: str = BASE_TOKENS
    tokens: Mapping[str, TokenRow] = field(default_factory=dict)
    pad_to_multiple_of: Annotated[int | None, Field(gt=0, le=1 << 20)] = None
    chat_template: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def is_union(self) -> bool:
        """Whether the tokens of all models are wanted."""
        return self.source == _UNION

    @property
    def model(self) -> str:
        """The model whose tokenizer is taken, or added to."""
        return _named(self.source) or BASE_TOKENS

    @property
    def template_of(self) -> str | None:
        """The model that lends its chat template; ``None``: the one that most agree with."""
        if self.chat_template == _AUTO:
            return None
        return self.model if self.chat_template is None else self.chat_template

    def faults(self, experts: Collection[str]) -> Iterator[Fault]:
        """List names that no model has.

        Args:
            experts: Names of the experts.
        """
        models = (BASE_TOKENS, *experts)
        words = (BASE_TOKENS, _UNION, *(f"{_OF_MODEL}{name}" for name in experts))
        yield from _unless_among(self.source, words, "source")
        if self.chat_template is not None:
            yield from _unless_among(self.chat_template, (*models, _AUTO), "chat_template")
        rows = (BASE_TOKENS, _ZERO, _PIECES, *words[2:])
        for token, row in self.tokens.items():
            path = ("tokens", token, "source")
            if isinstance(row.source, TokenOf):
                yield from _unless_among(row.source.model, models, *path, "model")
            elif row.source is not None:
                yield from _unless_among(row.source, rows, *path)
            elif row.force:
                text = "expected a source for a row that is forced, got none"
                yield Fault(("tokens", token, "force"), text)

    def as_data(self) -> dict[str, Any]:
        """Return plain data, leaving out what is as by default."""
        found: dict[str, Any] = {"source": self.source}
        if self.tokens:
            found["tokens"] = {token: _row_data(row) for token, row in self.tokens.items()}
        if self.pad_to_multiple_of is not None:
            found["pad_to_multiple_of"] = self.pad_to_multiple_of
        if self.chat_template is not None:
            found["chat_template"] = self.chat_template
        return found


def _row_data(row: TokenRow) -> dict[str, Any]:
    source: Any = row.source
    if isinstance(source, TokenOf):
        source = {key: value for key, value in vars(source).items() if value is not None}
    return {"source": source, "force": row.force}


def _named(source: str | None) -> str | None:
    if source == BASE_TOKENS:
        return source
    is_model = source is not None and source.startswith(_OF_MODEL)
    return source.removeprefix(_OF_MODEL) if is_model and source is not None else None


def _unless_among(value: str, known: Collection[str], *path: str) -> Iterator[Fault]:
    if value not in known:
        hint = did_you_mean(value, tuple(known))
        yield Fault(path, f"expected one of {', '.join(known)}, got {value!r}{hint}")
