"""What a mergekit file asks of tokenizer and chat template, where that is what a merge has anyway.

A merge carries the files of its base (or first model) as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evomerge.errors import Fault, RecipeError
from evomerge.models.files import file_in, read_json
from evomerge.models.reference import absolute_reference, resolve_model
from evomerge.models.vocabulary import moved_tokens, tokens_of
from evomerge.recipe.mergekit.file import MergekitFile, Tokenizer

__all__ = ["check_tokenizer"]

_LATER = "leave the key out, and change the merged folder's files"


def check_tokenizer(file: MergekitFile, anchor: str, *, beside: Path) -> None:
    """Refuse what would change tokenizer, embeddings or chat template of the anchor.

    Looks into the models' tokenizers only where a file asks for a union, another model's, or the
    template that most have.

    Args:
        file: As read.
        anchor: The model that lends its files.
        beside: Relative model folders start here.

    Raises:
        RecipeError: Every key that asks for something else.
        CheckpointError: A model has to be looked into and cannot be found.
    """
    asked = _Asked(file, anchor, beside)
    if faults := [*asked.source_faults(), *asked.token_faults(), *asked.template_faults()]:
        raise RecipeError(*faults)


class _Asked:
    """The wishes of one file."""

    def __init__(self, file: MergekitFile, anchor: str, beside: Path) -> None:
        self._file, self._anchor, self._beside = file, anchor, beside
        self._named = file.tokenizer is not None
        self._tokenizer = file.tokenizer or Tokenizer(source=file.tokenizer_source or "base")

    def source_faults(self) -> Iterator[Fault]:
        source = self._tokenizer.source
        if source in ("base", self._anchor):
            return
        others = self._others() if source == "union" else [source]
        for model in others:
            if unlike := self._unlike(model):
                key = ("tokenizer", "source") if self._named else ("tokenizer_source",)
                yield Fault(
                    key,
                    f"expected tokenizers of one vocabulary, for a merge has {self._anchor}'s; "
                    f"got {model} with {unlike}",
                    "take source: base, or a fine-tune with the vocabulary of its base",
                )

    def token_faults(self) -> Iterator[Fault]:
        if self._tokenizer.tokens:
            text = "expected none: rows of embeddings are merged as all tensors are"
            yield Fault(("tokenizer", "tokens"), text, "set single rows in the merged folder")
        if not (multiple := self._tokenizer.pad_to_multiple_of):
            return
        rows = read_json(self._folder(self._anchor) / "config.json").get("vocab_size", 1)
        if rows % multiple:
            text = f"expected a divisor of the {rows} rows of {self._anchor}, got {multiple}"
            yield Fault(("tokenizer", "pad_to_multiple_of"), text, _LATER)

    def template_faults(self) -> Iterator[Fault]:
        asked = self._file.chat_template
        if asked is None:
            return
        if asked != "auto":
            text = f"expected auto: a merge has the chat template of {self._anchor}"
            yield Fault(("chat_template",), text, _LATER)
            return
        own = _template(self._folder(self._anchor))
        for model in self._others():
            if _template(self._folder(model)) not in (None, own):
                text = f"expected one chat template, got another in {model} than in {self._anchor}"
                yield Fault(("chat_template",), text, _LATER)

    def _unlike(self, model: str) -> str:
        """Say in what a model's tokenizer differs from the anchor's; empty if in nothing."""
        own, other = self._folder(self._anchor), self._folder(model)
        if not (tokens_of(own) and tokens_of(other)):
            return "no tokenizer.json beside it to compare"
        if more := tokens_of(other).keys() - tokens_of(own).keys():
            return f"{len(more)} more tokens, such as {min(more)!r}"
        moved = moved_tokens(own, other)
        return f"{len(moved)} tokens at other ids" if moved else ""

    def _others(self) -> list[str]:
        models = (source.model for piece in self._file.slices for source in piece.sources)
        return [model for model in dict.fromkeys(models) if model != self._anchor]

    def _folder(self, model: str) -> Path:
        return resolve_model(absolute_reference(model, self._beside))


def _template(folder: Path) -> object:
    """Read the chat template of a model; ``None`` if it has none."""
    own = file_in(folder, "chat_template.jinja")
    if own.is_file():
        return own.read_text(encoding="utf-8")
    settings = file_in(folder, "tokenizer_config.json")
    return read_json(settings).get("chat_template") if settings.is_file() else None
