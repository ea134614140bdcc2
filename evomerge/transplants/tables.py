"""Embedding and head of the two models of a transplant, and what they become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import torch

from evomerge.errors import CheckpointError, Fault
from evomerge.models.architecture import Architecture
from evomerge.models.checkpoint import Checkpoint, is_one_tensor
from evomerge.models.files import companion_files
from evomerge.transplants.mix import Mix, mixed_rows
from evomerge.transplants.neighbours import interpolated
from evomerge.transplants.pursuit import pursued
from evomerge.transplants.tokens import SpeltVocabulary, TokenMatch, match_tokens, spelt_vocabulary

__all__ = ["METHODS", "ApproximationMethod", "NewTables", "VocabularyTables"]

ApproximationMethod = Literal["omp", "common_interpolation"]
"""How the rows of missing tokens are made of those of shared ones."""

_ROWS = 4096  # looked at together
_Approximate = Callable[[torch.Tensor, torch.Tensor, int, Callable[[int], None]], Mix]
METHODS: Mapping[ApproximationMethod, _Approximate] = {
    "omp": pursued,
    "common_interpolation": interpolated,
}
assert METHODS.keys() == set(get_args(ApproximationMethod))


class VocabularyTables:
    """The tensors of a model that have a row for each token.

    Args:
        model: Opened.

    Attributes:
        model: As given.
        kinds: By name: ``embedding`` or ``head``; a head that is one with the embedding is
            ``embedding``.

    Raises:
        CheckpointError: The model has no embedding, or no tokenizer that can be read, or the two
            have other sizes.
    """

    def __init__(self, model: Checkpoint) -> None:
        self.model = model
        architecture = Architecture(model.config, model.names)
        self.kinds: dict[str, str] = {
            name: architecture.roles[name].kind
            for name in architecture.vocabulary
            if name in model and model.dtype(name).is_floating_point
        }
        if "embedding" not in self.kinds.values():  # stored by the head's name alone
            self.kinds = dict.fromkeys(self.kinds, "embedding")
        for name, other in architecture.tied.items():
            if {name, other} <= self.kinds.keys() and is_one_tensor(model, name, other):
                self.kinds[name] = self.kinds[other] = "embedding"
        if faults := list(self._faults()):
            raise CheckpointError(*faults)

    @property
    def n_rows(self) -> int:
        """How many rows each has."""
        return self.model.shape(next(iter(self.kinds)))[0]

    @property
    def files(self) -> tuple[Path, ...]:
        """What rows and their tokens are read from."""
        return (*self.model.files, *companion_files(self.model.companions).values())

    @cached_property
    def vocabulary(self) -> SpeltVocabulary:
        """What the rows stand for."""
        return spelt_vocabulary(self.model.companions, self.n_rows)

    def table(self, kind: str) -> str:
        """Name the matrix of a kind; a model whose head is the embedding has one for both."""
        found = self._matrices(kind) or self._matrices("embedding")
        return found[0]

    def _matrices(self, kind: str) -> list[str]:
        return [n for n, k in self.kinds.items() if k == kind and len(self.model.shape(n)) == 2]

    def _faults(self) -> Iterator[Fault]:
        folder = self.model.folder
        if not self._matrices("embedding"):
            yield Fault((), f"expected a model with an embedding of tokens in {folder}, found none")
            return
        sizes = {name: self.model.shape(name)[0] for name in self.kinds}
        if len(set(sizes.values())) > 1:
            text = f"expected as many rows in embedding and head, got {sizes} in {folder}"
            yield Fault((), text, "save the model again with transformers")
        elif not self.vocabulary.tokens:
            text = f"expected a tokenizer.json in {self.model.companions}, found none"
            yield Fault((), text, "save its tokenizer with save_pretrained")


class NewTables:
    """What embedding and head of a model become with the tokens of another one, the donor.

    Rows of shared tokens stay. A missing one is approximated in the donor's space by shared ones,
    and the same combination is made in the model's own.

    Args:
        donor: Whose tokens they get.
        model: Which model.
        method: How missing tokens are approximated.
        k: Of how many shared ones at most.
        device: Where that is computed.
        progress: Called with (tokens approximated, tokens in all).

    Attributes:
        match: Which rows are which.
        errors: By table of the donor: the mean distance of its missing rows from what they are
            approximated by, as a part of their norm; of those that were needed so far.

    Raises:
        CheckpointError: The two have no token in common.
    """

    def __init__(
        self,
        donor: VocabularyTables,
        model: VocabularyTables,
        *,
        method: ApproximationMethod,
        k: int,
        device: str,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._donor, self._model = donor, model
        self._method, self._device, self._progress = METHODS[method], device, progress
        self.match: TokenMatch = match_tokens(donor.vocabulary, model.vocabulary)
        self._k = min(k, self.match.shared.shape[1])
        self.errors: dict[str, float] = {}
        self._mixes: dict[str, Mix] = {}
        if not self._k:
            raise CheckpointError(
                f"expected tokens in common, got none of {donor.model.companions} in "
                f"{model.model.companions}; rows of missing tokens are made of shared ones"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell the new shape of one of the model's tables."""
        return (self.match.n_rows, *self._model.model.shape(name)[1:])

    def table(self, name: str) -> torch.Tensor:
        """Make one of the model's tables.

        Returns:
            In the dtype that the model stores it in.
        """
        own, match = self._model.model.tensor(name), self.match
        out = torch.zeros(self.shape(name), dtype=own.dtype)
        for here, there in (match.shared, match.by_role):
            out[here] = own[there]
        if len(match.missing):
            mix = self._mix(self._donor.table(self._model.kinds[name]))
            out[match.missing] = mixed_rows(mix, own[match.shared[1]], own.dtype)
        if len(match.padding):
            named = torch.ones(match.n_rows, dtype=torch.bool).index_fill(0, match.padding, False)
            out[match.padding] = _mean(out, named).to(own.dtype)
            out[match.kept] = own[match.kept]
        return out

    def _mix(self, name: str) -> Mix:
        """Approximate the missing rows of one of the donor's tables."""
        if name not in self._mixes:
            table, match = self._donor.model.tensor(name), self.match
            targets, atoms = table[match.missing], table[match.shared[0]]
            there = (targets.to(self._device), atoms.to(self._device))
            mix = self._method(*there, self._k, self._counted(len(targets)))
            self._mixes[name] = mix
            self.errors[name] = _mean_error(targets, atoms, mix)
        return self._mixes[name]

    def _counted(self, total: int) -> Callable[[int], None]:
        return partial(_count, [0], total, self._progress)


def _count(done: list[int], total: int, progress: Callable[[int, int], None], n: int) -> None:
    done[0] += n
    progress(done[0], total)


def _mean(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    blocks = zip(rows.split(_ROWS), counts.split(_ROWS), strict=True)
    total = sum(block[here].double().sum(dim=0) for block, here in blocks)
    return torch.as_tensor(total) / counts.sum()


def _mean_error(targets: torch.Tensor, atoms: torch.Tensor, mix: Mix) -> float:
    total = 0.0
    for block, part in zip(targets.split(_ROWS), mix.split(_ROWS), strict=True):
        errors = (block.float() - mixed_rows(part, atoms)).norm(dim=1)
        norms = block.float().norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        total += float((errors / norms).sum())
    return total / len(targets)
