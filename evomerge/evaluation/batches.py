"""Token sequences sorted by length into batches, once; every candidate is run on the same ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

__all__ = [
    "LM_EVAL_BATCH",
    "Batch",
    "Pair",
    "Size",
    "Target",
    "batch_tokens",
    "chunked",
    "images_at_once",
    "likelihood_batches",
]

Pair = tuple[list[int], list[int]]  # tokens of a context and of its continuation
Size = Callable[[int], int]  # sequences per batch, given the length of the longest

LM_EVAL_BATCH = 64  # sequences per pass at most where lm-eval answers and nobody says how many
_TOKENS_PER_BATCH = 16384  # more per forward pass gain nothing
_LOGITS_BYTES = 1 << 30  # what the logits of a pass may take on CPU, where workers share memory
_LOGITS_SHARE = 16  # what part of a GPU's memory they may take there, the same for every worker


def batch_tokens(vocabulary: int, itemsize: int, gpu_bytes: int | None) -> int:
    """Tell how many tokens pay off in one forward pass and fit, with all their logits, in memory.

    Args:
        vocabulary: Logits of a token.
        itemsize: Bytes of one.
        gpu_bytes: All memory of the GPU; ``None`` on CPU.
    """
    room = _LOGITS_BYTES if gpu_bytes is None else gpu_bytes // _LOGITS_SHARE
    return min(_TOKENS_PER_BATCH, room // (vocabulary * itemsize))


def images_at_once(full: int, longest: int) -> int:
    """Tell how many prompts with images a batch of size ``auto`` has.

    Args:
        full: Tokens of a batch; see ``batch_tokens``.
        longest: Tokens of the longest prompt, images and answer included.
    """
    return max(1, min(LM_EVAL_BATCH, full // longest))


@dataclass(frozen=True)
class Target:
    """What one request reads off the logits of its batch.

    Attributes:
        request: Its position among the requests.
        tokens: (n,) int64 tokens of the continuation.
        positions: (n,) int64 logit rows of the batch that predict them.
        greedy_positions: (n,) the rows whose likeliest token must be the continuation's.
    """

    request: int
    tokens: torch.Tensor
    positions: torch.Tensor
    greedy_positions: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences of one forward pass.

    Attributes:
        tokens: (sequences, length) int64, padded on the right with 0.
        keep: How many of the last positions anything is read from.
        reads: (2, rows) int64: sequence, and position among the last ``keep``, of each logit row.
        targets: One per request.
    """

    tokens: torch.Tensor
    keep: int
    reads: torch.Tensor
    targets: tuple[Target, ...]


def likelihood_batches(
    pairs: Sequence[Pair],
    requests: Sequence[int],
    max_length: int,
    size: Size,
    *,
    keep_all: bool,
    device: torch.device,
) -> list[Batch]:
    """Sort pairs into batches as lm-eval does: with its batch size every float comes out the same.

    Continuations that differ only in their last token share one sequence.

    Args:
        pairs: Contexts with continuations, both of at least one token.
        requests: Which of the pairs.
        max_length: Longest sequence the model takes; longer ones lose tokens on the left.
        size: Sequences per batch.
        keep_all: Compute the logits of every position, as lm-eval does; the output layer may
            round differently when it sees fewer.
        device: Where the tensors are put.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for request in requests:
        context, continuation = pairs[request]
        alike[(*context, *continuation[:-1])].append(request)
    rows = [_Row(group, pairs, max_length) for group in alike.values()]
    rows.sort(key=lambda row: (-len(row.whole), row.whole))
    cuts = chunked([len(row.tokens) for row in rows], size)
    return [_batch(rows[cut], pairs, keep_all, device) for cut in cuts]


def chunked(lengths: Sequence[int], size: Size) -> Iterator[slice]:
    """Cut sequences of descending lengths into batches of at most ``size(longest)``."""
    start = 0
    while start < len(lengths):
        stop = start + size(lengths[start])
        yield slice(start, stop)
        start = stop


class _Row:
    """A sequence that answers requests which differ at most in their last token."""

    def __init__(self, group: Sequence[int], pairs: Sequence[Pair], max_length: int) -> None:
        context, continuation = max((pairs[i] for i in group), key=lambda pair: len(pair[1]))
        self.requests = group
        self.whole = context + continuation
        self.tokens = self.whole[-(max_length + 1) :][:-1]
        self.first = len(self.tokens) - len(continuation)  # what predicts the continuation


def _batch(
    rows: Sequence[_Row], pairs: Sequence[Pair], keep_all: bool, device: torch.device
) -> Batch:
    length = len(rows[0].tokens)
    padded = [row.tokens + [0] * (length - len(row.tokens)) for row in rows]
    dropped = 0 if keep_all else min(row.first for row in rows)
    reads: list[tuple[int, int]] = []
    targets = []
    for i, row in enumerate(rows):
        positions = torch.arange(len(row.tokens) - row.first, device=device) + len(reads)
        reads += [(i, position - dropped) for position in range(row.first, len(row.tokens))]
        for request in row.requests:
            tokens = torch.tensor(pairs[request][1], device=device)
            n = len(
                tokens
            )  # lm-eval reads likelihoods from the first rows, the argmax from the last
            targets.append(Target(request, tokens, positions[:n], positions[-n:]))
    return Batch(
        torch.tensor(padded, device=device),
        length - dropped,
        torch.tensor(reads, device=device).T.contiguous(),
        tuple(targets),
    )
