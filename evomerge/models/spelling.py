"""Full models opened under one spelling of their tensor names, each with all that it loads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from evomerge.errors import CheckpointError
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.loading import Loading, read_loading
from evomerge.models.opening import OpenModel
from evomerge.models.parts import PartsLayout, parts_of

__all__ = ["OneSpelling"]


class OneSpelling:
    """Opens full models; those that follow the first have its names for the same tensors.

    A tensor that is stored once and stands for two, as tied embeddings do, is there under both
    names. What the model never loads is there if the first model has it, too. A model of text alone
    after one of vision and language is named as the language tower of that one.

    Args:
        open_full: Opens the models.
    """

    def __init__(self, open_full: OpenModel) -> None:
        self._open = open_full
        self._first: Checkpoint | None = None
        self._names: dict[str, str] | None = None  # of the first model, by live name

    def __call__(self, reference: str) -> Checkpoint:
        """Open a model.

        Raises:
            CheckpointError: It is missing, or transformers would not load it whole.
        """
        checkpoint = self._open(reference)
        loading = read_loading(checkpoint.config, checkpoint.names)
        if self._first is None:
            self._first = checkpoint
            self._names = None if loading is None else _spelt_by(checkpoint, loading)
        if loading is None or self._names is None:  # nobody to ask: names are what they are
            return checkpoint
        stored = _stored(checkpoint, loading)
        if parts := self._parts_around(checkpoint):
            return self._in_tower(checkpoint, loading, parts)
        spelt = _spelt_by(checkpoint, loading) | self._names
        named = {spelt[live]: own for live, own in stored.items()}
        return checkpoint.named(self._unused(checkpoint, loading) | named)

    def _parts_around(self, checkpoint: Checkpoint) -> PartsLayout | None:
        """Find the parts of the first model, if this one, of text alone, is one of them.

        Raises:
            CheckpointError: It is the other way round.
        """
        assert self._first is not None  # it is there before anything is compared with it
        around, own = parts_of(self._first.config), parts_of(checkpoint.config)
        if around is None and own is not None:
            raise CheckpointError(
                f"expected a model of text alone like {self._first.folder}, got one of vision and "
                f"language ({checkpoint.config.get('model_type')}) in {checkpoint.folder}; make it "
                "the base, and an expert on text {model: EXPERT, minus: the base of text}"
            )
        return around if own is None else None

    def _in_tower(self, checkpoint: Checkpoint, loading: Loading, parts: PartsLayout) -> Checkpoint:
        """Name a model of text alone as the language tower of the first model."""
        assert self._names is not None  # or nobody knows of parts
        stored, own = _stored(checkpoint, loading), _spelt_by(checkpoint, loading)
        tower = {live: parts.in_tower(live) for live in stored}
        spelt = {live: self._names.get(name, name) for live, name in tower.items()}
        return checkpoint.named(
            {spelt[live]: name for live, name in stored.items()},
            {spelt[live]: name for live, name in own.items()},
        )

    def is_loaded(self, name: str) -> bool:
        """Tell whether the first model loads a tensor that it stores, or ties to one."""
        return self._names is None or name in self._names.values()

    def _unused(self, checkpoint: Checkpoint, loading: Loading) -> dict[str, str]:
        assert self._first is not None  # it is there before anything is compared with it
        unused = [name for name in checkpoint.names if name not in loading.live]
        return {n: n for n in unused if n in self._first and not self.is_loaded(n)}


def _spelt_by(checkpoint: Checkpoint, loading: Loading) -> dict[str, str]:
    stored = _stored(checkpoint, loading)
    return {live: _name(live, own, loading) for live, own in stored.items()}


def _name(live: str, own: str, loading: Loading) -> str:
    """Name a tensor as its file does, or, if the file has it for another, as the model does."""
    return own if loading.live[own] == live else live


def _stored(checkpoint: Checkpoint, loading: Loading) -> Mapping[str, str]:
    """Find what a checkpoint has for each live name, tied ones included."""
    _check_unique(checkpoint, loading)
    stored = {live: name for name, live in loading.live.items()}
    for name, other in loading.tied.items():
        for one, two in ((name, other), (other, name)):
            if one not in stored and two in stored:
                stored[one] = stored[two]
    for name in loading.ends:
        if name not in stored:
            raise CheckpointError(
                f"expected {name} in {checkpoint.folder}, whose config.json does not tie head and "
                "embedding, found none; if they are one, set tie_word_embeddings to true there"
            )
    return stored


def _check_unique(checkpoint: Checkpoint, loading: Loading) -> None:
    twice = [live for live, n in Counter(loading.live.values()).items() if n > 1]
    if twice:
        names = [name for name, live in loading.live.items() if live == twice[0]]
        raise CheckpointError(
            f"expected each tensor once in {checkpoint.folder}, got {len(twice)} under two names, "
            f"e.g. {' and '.join(names)}; remove one of them"
        )
