"""Reading sequences off a live model with a graph behind, in microbatches that bound its memory."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

from evomerge.evaluation.batches import Batch, Target, likelihood_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Piece",
    "Reading",
    "as_evaluated",
    "checkpointed",
    "microbatches",
    "predictions",
    "read",
]


@dataclass(frozen=True)
class Reading:
    """What is read off one sequence: a log-likelihood, or entropies.

    Attributes:
        context: Tokens before; at least one.
        continuation: Tokens whose log-likelihood is read; at least one.
        ends: Tokens any of which may follow; their joint probability belongs to the likelihood.
        is_entropy: Whether the entropies of the predictions are summed instead, in nats.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    ends: tuple[int, ...] = ()
    is_entropy: bool = False

    @property
    def scored(self) -> tuple[int, ...]:
        """The continuation with one token that ends it, if any."""
        return self.continuation + self.ends[:1]

    @functools.cached_property
    def tokens(self) -> tuple[int, ...]:
        """What the model reads: everything but the last token."""
        return (*self.context, *self.scored)[:-1]


@dataclass(frozen=True)
class Piece:
    """Readings that must go through the model together, because one loss is made of them.

    Attributes:
        readings: At least one.
        loss: From (..., readings) to (...).
        share: What it is multiplied with.
    """

    readings: tuple[Reading, ...]
    loss: Callable[[torch.Tensor], torch.Tensor]
    share: float = 1.0

    @functools.cached_property
    def n_sequences(self) -> int:
        """Sequences it takes; readings that differ only in their last token share one."""
        return len({reading.tokens for reading in self.readings})

    @functools.cached_property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(reading.tokens) for reading in self.readings)

    @property
    def n_rows(self) -> int:
        """Predictions that are read."""
        return sum(len(reading.scored) for reading in self.readings)

    @property
    def n_tokens(self) -> int:
        """Tokens of all its sequences, padded."""
        return self.n_sequences * self.length


def microbatches(pieces: Sequence[Piece], n_tokens: int) -> Iterator[list[Piece]]:
    """Sort pieces by length and cut them into microbatches, longest first.

    Args:
        pieces: In any order.
        n_tokens: Padded tokens per microbatch; a piece that takes more is alone.
    """
    batch: list[Piece] = []
    n_sequences = 0
    for piece in sorted(pieces, key=lambda piece: -piece.length):
        if batch and (n_sequences + piece.n_sequences) * batch[0].length > n_tokens:
            yield batch
            batch, n_sequences = [], 0
        batch.append(piece)
        n_sequences += piece.n_sequences
    if batch:
        yield batch


def read(model: PreTrainedModel, readings: Sequence[Reading], max_length: int) -> torch.Tensor:
    """Run a model on sequences, in one forward pass.

    Args:
        model: A causal language model.
        readings: At least one.
        max_length: Longest sequence the model takes; longer ones lose tokens on the left.

    Returns:
        (readings,) nats, in float32 at least.
    """
    return _read(readings, *predictions(model, readings, max_length))


def predictions(
    model: PreTrainedModel, readings: Sequence[Reading], max_length: int
) -> tuple[Sequence[Target], torch.Tensor]:
    """Run a model on sequences and return all that it predicts; see ``read``.

    Returns:
        What each reading reads, and (rows, vocabulary) log-probabilities in float32 at least.
    """
    n = len(readings)
    pairs = [(list(reading.context), list(reading.scored)) for reading in readings]
    here = torch.device("cpu")  # what is only looked up never has to come back from a GPU
    (batch,) = likelihood_batches(
        pairs, range(n), max_length, lambda _: n, keep_all=True, device=here
    )
    logits = _logits(model, batch)
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    return batch.targets, logits.log_softmax(-1)


def _read(
    readings: Sequence[Reading], targets: Sequence[Target], log_p: torch.Tensor
) -> torch.Tensor:
    """(readings,) sums; each kind of reading is one look at the (rows, vocabulary) predictions.

    One look for each reading would have a gradient of its own, as large as all predictions.
    """
    known, uncertain = _Look(), _Look()
    ended: dict[tuple[int, ...], _Look] = defaultdict(_Look)
    for target in targets:
        reading, rows = readings[target.request], target.greedy_positions.tolist()
        if reading.is_entropy:
            uncertain.add(target.request, rows)
            continue
        known.add(target.request, rows[: len(reading.continuation)], reading.continuation)
        if reading.ends:
            ended[reading.ends].add(target.request, rows[-1:])
    total = log_p.new_zeros(len(readings))
    if known.rows:
        total = total.index_add(0, known.owner(log_p), log_p[known.rows, known.tokens])
    for ends, look in ended.items():
        any_end = log_p[[[row] for row in look.rows], list(ends)].logsumexp(-1)
        total = total.index_add(0, look.owner(log_p), any_end)
    if uncertain.rows:
        own = log_p[uncertain.rows]
        total = total.index_add(0, uncertain.owner(log_p), -(own.exp() * own).sum(-1))
    return total


@dataclass
class _Look:
    """Which rows of the predictions are looked at, for which readings, at which tokens."""

    owners: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def add(self, owner: int, rows: Sequence[int], tokens: Sequence[int] = ()) -> None:
        self.owners += [owner] * len(rows)
        self.rows += rows
        self.tokens += tokens

    def owner(self, log_p: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.owners, device=log_p.device)


def _logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """(rows, vocabulary) logits; hidden states that nobody reads never reach the output layer."""
    sequence, position = batch.reads.to(model.device)
    n = len(position)

    def narrow(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][sequence, position][None], *inputs[1:])

    with model.get_output_embeddings().register_forward_pre_hook(narrow):
        logits: torch.Tensor = model(batch.tokens.to(model.device), use_cache=False).logits
    return logits[0] if logits.shape[:2] == (1, n) else logits[sequence, position]


@contextmanager
def checkpointed(model: PreTrainedModel, is_on: bool) -> Iterator[None]:
    """Keep only what goes into each layer, where a model's layers can be run again.

    Args:
        model: A causal language model; its mode does not matter.
        is_on: Whether to do so.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer  # slow, and a model has it

    modules = model.modules() if is_on else ()
    with ExitStack() as stack:
        for layer in [m for m in modules if isinstance(m, GradientCheckpointingLayer)]:
            layer.forward = functools.partial(  # found before the method of the class
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
            stack.callback(vars(layer).pop, "forward")
        yield


@contextmanager
def as_evaluated(model: PreTrainedModel) -> Iterator[None]:
    """Run a model without dropout; afterwards every part's mode is as before."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
