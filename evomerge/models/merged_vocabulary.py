"""The one vocabulary of a merge, and its models seen through a map of their rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evomerge.models.checkpoint import Checkpoint, StoredTensor
from evomerge.models.rows import RowMap
from evomerge.models.tiles import row_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evomerge.models.expert import TensorSource

__all__ = [
    "GENERATION",
    "MergedVocabulary",
    "OnMergedVocabulary",
    "fit_vocabulary",
    "special_ids",
    "write_vocabulary",
]

GENERATION = "generation_config.json"


def special_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """Find what a config names by a token's id, such as ``eos_token_id``: ids, lists, ``None``."""
    return {key: value for key, value in config.items() if key.endswith(_SPECIAL)}


_SPECIAL = ("_token_id", "_token_index")


@dataclass(frozen=True, eq=False)
class MergedVocabulary:
    """How a set of models is brought to one vocabulary.

    Attributes:
        names: Tensors whose rows are tokens: embedding and head, with a bias if it has one.
        maps: By model.
        sources: The models as they are, by name.
        config: Of the merge: the base's with the vocabulary's size and special tokens.
        companions: Folder with the merge's tokenizer and what goes with it.
        notes: What is done, in one line per model.
    """

    names: frozenset[str]
    maps: Mapping[str, RowMap]
    sources: Mapping[str, TensorSource]
    config: Mapping[str, Any]
    companions: Path
    notes: tuple[str, ...] = ()

    def view(self, name: str) -> OnMergedVocabulary:
        """Return one of the models, with this vocabulary."""
        return OnMergedVocabulary(self, name)


class OnMergedVocabulary(Checkpoint):
    """One model with the vocabulary of a merge.

    A tensor of the vocabulary whose first rows are the merge's is a view of them. Any other is
    computed in float32 at each call, unless that is done elsewhere (``read_by``).

    Args:
        vocabulary: Of all models.
        name: Which of them.

    Attributes:
        source: The model as it is.
    """

    def __init__(self, vocabulary: MergedVocabulary, name: str) -> None:
        self.source = vocabulary.sources[name]
        vars(self).update(vars(self.source.layout))
        self._vocabulary, self._rows = vocabulary, vocabulary.maps[name]
        self._read: Callable[[str], torch.Tensor] = self._computed
        self.config = dict(vocabulary.config)
        own = self.source.computation
        self.computation = own if self._rows.is_whole else f"{own} rows {self._rows.digest}".strip()

    @property
    def layout(self) -> Checkpoint:
        """See ``TensorSource``."""
        return self

    @property
    def n_rows(self) -> int:
        """Rows of embedding and head."""
        return self._rows.n_rows

    @property
    def companions(self) -> Path:
        """See ``Checkpoint``."""
        return self._vocabulary.companions

    @property
    def files(self) -> tuple[Path, ...]:
        """See ``TensorSource``; those of models that lend rows, too."""
        donors = dict.fromkeys(name for rows in self._rows.given.values() for name, _ in rows)
        models = [self.source, *(self._vocabulary.sources[name] for name in donors)]
        found = [file for model in models for file in (*model.files, *_tokenizer(model))]
        return tuple(dict.fromkeys([*found, *_tokenizer(self)]))

    def is_mapped(self, name: str) -> bool:
        """Tell whether the rows of a tensor are others than the model's own, or fewer."""
        return name in self._vocabulary.names and not self._rows.is_whole

    def shape(self, name: str) -> tuple[int, ...]:
        """See ``Checkpoint``."""
        own = self.source.layout.shape(name)
        return (self._rows.n_rows, *own[1:]) if self.is_mapped(name) else own

    def tensor(self, name: str) -> torch.Tensor:
        """See ``TensorSource``."""
        if not self.is_mapped(name):
            return self.source.tensor(name)
        return self._start(name) if self._rows.is_start else self._read(name)

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """See ``TensorSource``; what they are called says how rows are mapped."""
        found = self.source.parts(name)
        if not self.is_mapped(name):
            return found
        if self._rows.is_start and len(found) == 1:
            label = f"{found[0].name} up to row {self._rows.n_rows}"
            return (replace(found[0], name=label, read=partial(self._start, name)),)
        rows = tuple(replace(part, name=f"{part.name} by {self._rows.digest}") for part in found)
        return rows if len(rows) > 1 else rows * 2  # several parts: computed

    def read_by(self, tensor_of: Callable[[str], torch.Tensor]) -> OnMergedVocabulary:
        """Take computed tensors from elsewhere, where the same is kept."""
        other = copy(self)
        other._read = tensor_of
        return other

    def _start(self, name: str) -> torch.Tensor:
        return self.source.tensor(name)[: self._rows.n_rows]

    def _computed(self, name: str) -> torch.Tensor:
        source, rows = self.source.tensor(name), self._rows
        out = torch.zeros(self.shape(name), dtype=torch.float32)
        own = torch.from_numpy(rows.own)
        for block in row_blocks(out.shape):
            here = (own[block] >= 0).nonzero().squeeze(1)
            out[block][here] = source[own[block][here]].float()
        for donor, (places, theirs) in self._given.items():
            lent = self._vocabulary.sources[donor].tensor(name)
            out.index_add_(0, places, lent[theirs].float())
        for row, lent_rows in rows.given.items():
            if len(lent_rows) > 1:
                out[row] /= len(lent_rows)
        if rows.averaged:
            out[list(rows.averaged)] = out[torch.from_numpy(rows.named)].mean(dim=0)
        return out

    @property
    def _given(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """By lending model: rows here and there."""
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, lent in self._rows.given.items():
            for name, theirs in lent:
                found[name].append((row, theirs))
        return {name: tuple(torch.tensor(pairs).T) for name, pairs in found.items()}


def fit_vocabulary(model: PreTrainedModel, anchor: Checkpoint) -> None:
    """Give a live model that was loaded from such a model's folder its rows and special tokens.

    Args:
        model: Changed; new rows hold any values (``write_vocabulary``).
        anchor: What it was loaded from; if it has its own vocabulary, nothing happens.
    """
    if not isinstance(anchor, OnMergedVocabulary):
        return
    from transformers import GenerationConfig

    if model.get_input_embeddings().num_embeddings != anchor.n_rows:
        model.resize_token_embeddings(anchor.n_rows, mean_resizing=False)
    for key, value in special_ids(anchor.config).items():
        setattr(model.config, key, value)
    if (anchor.companions / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(anchor.companions))
    else:
        model.generation_config = GenerationConfig.from_model_config(model.config)


@torch.no_grad()
def write_vocabulary(live: Mapping[str, torch.Tensor], anchor: Checkpoint) -> None:
    """Write the rows of such a model into the live one that was loaded from its folder.

    Args:
        live: Views into the live model, by tensor name.
        anchor: What it was loaded from; if it has its own vocabulary, nothing happens.
    """
    if isinstance(anchor, OnMergedVocabulary):
        for name in filter(anchor.is_mapped, live):
            live[name].copy_(anchor.tensor(name))


def _tokenizer(model: Any) -> Collection[Path]:
    file = model.layout.companions / "tokenizer.json"
    return (file,) if file.is_file() else ()
