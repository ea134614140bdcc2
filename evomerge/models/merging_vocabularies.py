"""Finds how the vocabularies of a merge's models are brought together, if they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError, Fault
from evomerge.models.companions import Companions, chat_template
from evomerge.models.expert import Delta, TensorSource
from evomerge.models.files import file_in, read_json
from evomerge.models.merged_vocabulary import MergedVocabulary
from evomerge.models.rows import RowMap, Vocabulary, merged_rows
from evomerge.models.tokenizer_choice import BASE_TOKENS, TokenizerChoice, TokenOf
from evomerge.models.vocabulary import tokens_of

__all__ = ["merge_vocabularies"]

_LEAST_SHARED = 0.5  # of the smaller vocabulary


def merge_vocabularies(
    models: Mapping[str, TensorSource], tensors: Collection[str], choice: TokenizerChoice | None
) -> MergedVocabulary | None:
    """Find the vocabulary of a merge, and how each model has it.

    Without a choice, models whose rows all stand at the same places are left as they are, whatever
    added tokens are called; others get the base's vocabulary.

    Args:
        models: The base under ``base``, if there is one, and the experts by name.
        tensors: Whose rows are tokens.
        choice: What is asked for.

    Returns:
        ``None`` where no model changes, nor any file beside the tensors.

    Raises:
        CheckpointError: Every model with too different a vocabulary, and what of the choice no
            model has.
    """
    if not all(any(name in model.layout for name in tensors) for model in models.values()):
        return None  # no embedding is known, or a model lacks it, which is another fault
    merging = _Merging(models, tuple(tensors), choice or TokenizerChoice())
    if choice is None and not merging.is_needed:
        return None
    if faults := list(merging.faults()):
        raise CheckpointError(*faults)
    return merging.vocabulary


class _Merging:
    def __init__(
        self, models: Mapping[str, TensorSource], tensors: Sequence[str], choice: TokenizerChoice
    ) -> None:
        self._models, self._tensors, self._choice = models, tensors, choice
        self._anchor = next(iter(models))
        self._known: dict[Path, dict[str, int]] = {}  # tokens by folder: files of megabytes

    @property
    def is_needed(self) -> bool:
        """Whether models have other numbers of rows, or the same token in other rows."""
        first, *others = self._models.values()
        return any(self._sizes(first) != self._sizes(m) for m in others) or any(
            first.layout.folder != other.layout.folder and self._is_moved(first, other)
            for other in others
        )

    def faults(self) -> Iterator[Fault]:
        experts = [name for name in self._models if name != BASE_TOKENS]
        if wrong := [f.under("tokenizer") for f in self._choice.faults(experts)]:
            yield from wrong
            return
        for name, model in self._models.items():
            path = (name,) if name == BASE_TOKENS else ("experts", name)
            yield from (Fault(path, text, hint) for text, hint in self._misfits(name, model))
        yield from (fault.under("tokenizer") for fault in self._source_faults())

    @property
    def vocabulary(self) -> MergedVocabulary | None:
        merge, lender, companions = self._merge, self._lender, self._companions
        maps = merged_rows(self._vocabularies, merge, lender, self._choice.tokens, self._pieces)
        if companions.is_plain and all(rows.is_whole for rows in maps.values()):
            return None
        anchor = self._models[self._anchor].layout
        return MergedVocabulary(
            frozenset(self._tensors),
            maps,
            self._models,
            companions.config(anchor.config, merge.tokens, merge.n_rows),
            companions.folder(merge.tokens),
            tuple(self._notes(maps)),
        )

    def _notes(self, maps: Mapping[str, RowMap]) -> Iterator[str]:
        """Say what is done, in one line for the merge and one per model."""
        template = self._name_of(self._companions.template)
        what = "union of all tokens" if self._choice.is_union else f"tokens of {self._lender}"
        yield (
            f"{what}, {len(self._merge.tokens)} in {self._merge.n_rows} rows; chat template, "
            f"special tokens and generation settings of {template}"
        )
        for name, rows in maps.items():
            assumed = (
                "" if self._own_tokens(name) else "no tokenizer.json is here, taken as the base's: "
            )
            yield f"{name}: {assumed}{rows.summary}"

    def _name_of(self, folder: Path) -> str:
        return next(name for name in self._models if self._folder(name) == folder)

    @cached_property
    def _vocabularies(self) -> dict[str, Vocabulary]:
        return {name: self._vocabulary(name) for name in self._models}

    def _vocabulary(self, name: str) -> Vocabulary:
        """Read what a model's rows are; without a tokenizer, as those of the first model."""
        n_rows = self._sizes(self._models[name])[0]
        tokens = self._own_tokens(name) or self._own_tokens(self._anchor)
        return Vocabulary({token: row for token, row in tokens.items() if row < n_rows}, n_rows)

    def _own_tokens(self, name: str) -> dict[str, int]:
        return self._tokens_of(self._folder(name))

    def _tokens_of(self, folder: Path) -> dict[str, int]:
        if folder not in self._known:
            self._known[folder] = tokens_of(folder)
        return self._known[folder]

    def _is_moved(self, one: TensorSource, other: TensorSource) -> bool:
        """Tell whether a token, added or not, is another row of the second model."""
        folders = [model.layout.companions for model in (one, other)]
        files = [file_in(folder, "tokenizer.json") for folder in folders]
        if not all(file.is_file() for file in files):
            return False
        if files[0].read_bytes() == files[1].read_bytes():
            return False
        ours, theirs = map(self._tokens_of, folders)
        return any(theirs.get(token, row) != row for token, row in ours.items())

    @cached_property
    def _lender(self) -> str:
        return self._resolved(self._choice.model)

    def _resolved(self, name: str) -> str:
        return name if name in self._models else self._anchor

    @cached_property
    def _merge(self) -> Vocabulary:
        lent = self._vocabularies[self._lender]
        tokens, n_rows = lent.tokens, lent.n_rows
        if self._companions.added:
            tokens = self._companions.tokens()
            n_rows = max(n_rows, 1 + max(tokens.values()))
        multiple = self._choice.pad_to_multiple_of or 1
        return Vocabulary(tokens, -(-n_rows // multiple) * multiple)

    @cached_property
    def _companions(self) -> Companions:
        anchor, lender = (self._folder(name) for name in (self._anchor, self._lender))
        named = self._choice.template_of
        template = self._most_common if named is None else self._folder(self._resolved(named))
        return Companions(anchor, lender, tuple(self._added()), template)

    @property
    def _most_common(self) -> Path:
        """Find the first model with the chat template that most have."""
        found = {self._folder(n): chat_template(self._folder(n)) for n in self._models}
        counts = Counter(text for text in found.values() if text is not None)
        most = max(counts, key=lambda text: counts[text], default=None)
        return next(folder for folder, text in found.items() if text == most)

    def _folder(self, name: str) -> Path:
        return self._models[name].layout.companions

    def _added(self) -> Iterator[Mapping[str, Any]]:
        """List tokens that the tokenizer gets: ordinary ones of all models, then added ones."""
        known = dict(self._own_tokens(self._lender))
        others = self._models if self._choice.is_union else {}
        added = [_added_tokens(self._folder(name)) for name in others]
        names = {token["content"] for tokens in added for token in tokens}
        ordinary = [
            {"content": token, "normalized": True}
            for name in others
            for token in self._vocabularies[name].tokens
            if token not in names
        ]
        stored = [
            token
            for name, tokens in zip(others, added, strict=True)
            for token in tokens
            if token["content"] in self._vocabularies[name].tokens
        ]
        asked = [{"content": token} for token in self._choice.tokens]
        for token in (*ordinary, *stored, *asked):
            if token["content"] not in known:
                known[token["content"]] = len(known)
                yield token

    def _pieces(self, token: str) -> Sequence[str]:
        return self._cut(token)

    @cached_property
    def _cut(self) -> Callable[[str], Sequence[str]]:
        from tokenizers import Tokenizer

        found = Tokenizer.from_file(str(self._folder(self._lender) / "tokenizer.json"))
        return lambda token: found.encode(token, add_special_tokens=False).tokens

    def _sizes(self, model: TensorSource) -> tuple[int, ...]:
        """Count the rows of each tensor, which are as many in all of them."""
        layout = model.layout
        return tuple(layout.shape(name)[0] for name in self._tensors if name in layout)

    def _misfits(self, name: str, model: TensorSource) -> Iterator[tuple[str, str]]:
        folder, sizes = model.layout.folder, self._sizes(model)
        if len(set(sizes)) > 1:
            text = f"expected as many rows in embedding and head, got {sizes} in {folder}"
            yield text, "save the model again with transformers"
        anchor = self._models[self._anchor]
        is_same = sizes == self._sizes(anchor) and not self._is_moved(anchor, model)
        if isinstance(model, Delta) and not is_same:
            yield (
                f"expected both models of a delta to have the vocabulary of the base, got {folder}",
                "give the model itself as an expert",
            )
        ours, theirs = self._own_tokens(self._anchor), self._own_tokens(name)
        shared, least = len(ours.keys() & theirs.keys()), min(len(ours), len(theirs))
        if shared < _LEAST_SHARED * least:
            yield (
                f"expected a tokenizer that shares most tokens with {self._folder(self._anchor)}, "
                f"got {folder} with {shared} of {len(theirs)} in common",
                "'evomerge transplant' gives it the base's tokens: merge that, or leave it out",
            )

    def _source_faults(self) -> Iterator[Fault]:
        if not self._own_tokens(self._lender) and self._choice != TokenizerChoice():
            text = f"expected a tokenizer.json in {self._folder(self._lender)}, found none"
            yield Fault(("source",), text, "save its tokenizer with save_pretrained")
        for token, row in self._choice.tokens.items():
            if row.model is None:
                continue
            model = self._vocabularies[self._resolved(row.model)]
            spelt = row.source.token if isinstance(row.source, TokenOf) else token
            at = row.source.token_id if isinstance(row.source, TokenOf) else None
            if at is None and spelt not in model.tokens:
                text = f"expected a token of {row.model}, got {spelt!r}, which it does not have"
                yield Fault(("tokens", token, "source"), text)
            if at is not None and at >= model.n_rows:
                text = f"expected a row of {row.model}, which has {model.n_rows}, got {at}"
                yield Fault(("tokens", token, "source", "token_id"), text)


def _added_tokens(folder: Path) -> list[dict[str, Any]]:
    file = file_in(folder, "tokenizer.json")
    found = read_json(file).get("added_tokens") if file.is_file() else None
    return sorted(found or [], key=lambda token: int(token["id"]))
