"""From the file of an ensemble to what scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.ensembles.file import EnsembleFile
from evomerge.ensembles.model import Ensemble
from evomerge.ensembles.voting import VotingEngine
from evomerge.errors import CheckpointError, Fault, collected
from evomerge.evaluation.engine import Engine
from evomerge.evaluation.reasoning import Tags
from evomerge.evaluation.suite import BatchSize
from evomerge.evaluation.transformers_engine import TransformersEngine
from evomerge.merging.candidate import load_model
from evomerge.merging.spread import to_gpu
from evomerge.models.configs import read_config
from evomerge.models.outline import load_tokenizer
from evomerge.models.reference import resolve_model
from evomerge.models.structure import text_only_fault
from evomerge.models.vocabulary import moved_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["EnsembleCosts", "LiveEnsemble"]


@dataclass(frozen=True)
class EnsembleCosts:
    """What an ensemble takes beside a single model.

    Attributes:
        parameters: Held in memory.
        active_parameters: That each token meets.
        forwards: Forward passes per token.
    """

    parameters: int
    active_parameters: int
    forwards: int


class LiveEnsemble:
    """The models of an ensemble, loaded.

    Args:
        file: Which they are.

    Raises:
        CheckpointError: Listing every model that is missing, is no causal language model, or has
            other tokens than the first; nothing is loaded before that is known.
    """

    def __init__(self, file: EnsembleFile) -> None:
        self._file, folders = file, _folders(file.models)
        self.tokenizer = load_tokenizer(folders[0])
        self.members: list[PreTrainedModel] = []
        for folder in folders:
            model = load_model(str(folder), "auto")
            to_gpu(model)
            self.members.append(model)

    @cached_property
    def model(self) -> PreTrainedModel:
        """What prompts are made for: all of them as one model; of a vote, the first."""
        if self._file.by == "vote":
            return self.members[0]
        together: PreTrainedModel = Ensemble(self.members, self._file.shares, self._file.by)
        together.eval()
        return together

    @property
    def costs(self) -> EnsembleCosts:
        """What it takes: every member meets every token."""
        n = sum(p.numel() for member in self.members for p in member.parameters())
        return EnsembleCosts(n, n, len(self.members))

    def make_engine(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: BatchSize,
        tags: Tags | None = None,
    ) -> Engine:
        """Make what answers; see ``MakeEngine``."""
        if self._file.by == "vote":
            return VotingEngine(self.members, self._file.shares, tokenizer, batch_size, tags)
        return TransformersEngine(model, tokenizer, batch_size, tags)


def _folders(models: Sequence[str]) -> list[Path]:
    faults: list[Fault] = []
    found: list[Path] = []
    for i, reference in enumerate(models):
        with collected(faults, "ensemble", "models", i):
            folder = resolve_model(reference)
            _check(folder, found[0] if found else folder)
            found.append(folder)
    if faults:
        raise CheckpointError(*faults)
    return found


def _check(folder: Path, first: Path) -> None:
    if reason := text_only_fault(read_config(folder)):
        raise CheckpointError(f"{folder}: {reason}")
    for token, (at, instead) in list(moved_tokens(first, folder).items())[:1]:
        raise CheckpointError(
            f"expected the token ids of {first}, got others in {folder}, e.g. {token!r} is "
            f"{instead} instead of {at}; models that answer together must share their vocabulary"
        )
