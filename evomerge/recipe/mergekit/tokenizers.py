"""What a mergekit file asks of tokenizer and chat template, as a recipe's choice, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evomerge.errors import Fault, RecipeError, brief
from evomerge.models.tokenizer_choice import BASE_TOKENS, TokenizerChoice, TokenOf, TokenRow
from evomerge.recipe.mergekit.file import MergekitFile, Tokenizer
from evomerge.schema import parse

__all__ = ["mergekit_tokenizer", "tokenizer_choice"]

_UNION, _AUTO = "union", "auto"
_LATER = "leave the key out, and change the merged folder's files"


def tokenizer_choice(
    file: MergekitFile, experts: Mapping[str, str], base: str | None
) -> TokenizerChoice | None:
    """Read what a file asks for.

    Args:
        file: As read.
        experts: Names of the recipe's experts, by mergekit's name of the model.
        base: The recipe's base, by mergekit's name.

    Returns:
        ``None`` if the file says nothing of it.

    Raises:
        RecipeError: Every key that a recipe cannot have.
    """
    if file.tokenizer is None and file.tokenizer_source is None and file.chat_template is None:
        return None
    asked = _Asked(file, experts, base)
    source, rows = asked.source(), asked.rows()
    template = asked.template()
    if asked.faults:
        raise RecipeError(*asked.faults)
    return TokenizerChoice(source, rows, asked.tokenizer.pad_to_multiple_of, template)


class _Asked:
    """The wishes of one file, and what is wrong with them."""

    def __init__(self, file: MergekitFile, experts: Mapping[str, str], base: str | None) -> None:
        self._file, self._experts, self._base = file, experts, base
        self.tokenizer = file.tokenizer or Tokenizer(source=file.tokenizer_source or BASE_TOKENS)
        self.faults: list[Fault] = []

    def source(self) -> str:
        asked = self.tokenizer.source
        if asked in (BASE_TOKENS, _UNION):
            return asked
        is_named = self._file.tokenizer is not None
        return self._named(asked, ("tokenizer", "source") if is_named else ("tokenizer_source",))

    def rows(self) -> dict[str, TokenRow]:
        return {
            token: self._row(row, ("tokenizer", "tokens", token))
            for token, row in (self.tokenizer.tokens or {}).items()
        }

    def template(self) -> str | None:
        if self._file.chat_template in (None, _AUTO):
            return self._file.chat_template
        text = "expected auto: a merge has the chat template of one of its models"
        self.faults.append(Fault(("chat_template",), text, _LATER))
        return None

    def _row(self, row: Any, path: tuple[str, ...]) -> TokenRow:
        row = {} if row is None else row
        if not isinstance(row, Mapping) or not set(row) <= {"source", "force"}:
            self.faults.append(Fault(path, f"expected source and force, got {brief(row)}"))
            return TokenRow()
        return TokenRow(
            self._row_source(row.get("source"), (*path, "source")), bool(row.get("force", False))
        )

    def _row_source(self, source: Any, path: tuple[str, ...]) -> str | TokenOf | None:
        if source is None or isinstance(source, str):
            return source if source is None else self._named(source, path)
        kind = source.get("kind") if isinstance(source, Mapping) else None
        if kind == "zero":
            return "zero"
        if kind != "model_token":
            text = (
                f"expected a model, {{kind: zero}} or {{kind: model_token, …}}, got {brief(source)}"
            )
            self.faults.append(Fault(path, text))
            return None
        name = self._named(str(source.get("model")), (*path, "model")).removeprefix("model:")
        return parse(TokenOf, {**{k: v for k, v in source.items() if k != "kind"}, "model": name})

    def _named(self, model: str, path: tuple[str, ...]) -> str:
        """Name a model as the recipe does."""
        if model in self._experts:
            return f"model:{self._experts[model]}"
        if model != self._base:
            known = ", ".join([*([] if self._base is None else [self._base]), *self._experts])
            self.faults.append(Fault(path, f"expected one of the models {known}, got {model!r}"))
        return BASE_TOKENS


def mergekit_tokenizer(choice: TokenizerChoice, model_of: Callable[[str], Any]) -> dict[str, Any]:
    """Write a recipe's choice as the keys of a mergekit file.

    Args:
        choice: Of the recipe.
        model_of: Writes ``base`` or an expert, by name, as mergekit names models.

    Raises:
        RecipeError: mergekit cannot do it.
    """
    if choice.chat_template not in (None, _AUTO):
        raise RecipeError(
            "mergekit cannot take chat template and special tokens from one of the models; leave "
            "tokenizer.chat_template out, or export the model"
        )
    is_own = choice.source in (BASE_TOKENS, _UNION)
    tokens = {token: _row_data(token, row, model_of) for token, row in choice.tokens.items()}
    content = {"source": choice.source if is_own else model_of(choice.model)}
    content |= {"tokens": tokens} if tokens else {}
    if choice.pad_to_multiple_of is not None:
        content["pad_to_multiple_of"] = choice.pad_to_multiple_of
    template = {} if choice.chat_template is None else {"chat_template": choice.chat_template}
    return {"tokenizer": content, **template}


def _row_data(token: str, row: TokenRow, model_of: Callable[[str], Any]) -> dict[str, Any]:
    if row.is_of_pieces:
        raise RecipeError(f"mergekit makes no row of a token's pieces, as {token!r} asks for")
    if isinstance(row.source, TokenOf):
        which = {k: v for k, v in vars(row.source).items() if k != "model" and v is not None}
        own: Any = {"kind": "model_token", "model": model_of(row.source.model), **which}
    else:
        own = {"kind": "zero"} if row.is_zero else row.model and model_of(row.model)
    return {**({} if own is None else {"source": own}), "force": row.force}
