"""Token sequences sorted by length into batches, once; every candidate is run on the same ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Batch", "Pair", "Target", "chunked", "likelihood_batches"]

Pair = tuple[list[int], list[int]]  # tokens of a context and of its continuation


@dataclass(frozen=True)
class Target:
    """What one request reads off the logits of its batch.

    Attributes:
        request: Its position among the requests.
        positions: (n,) int64 rows of ``Batch.reads`` that predict the continuation.
        greedy_positions: (n,) the rows whose most likely token must be the continuation's.
        tokens: (n,) int64 tokens of the continuation.
    """

    request: int
    positions: torch.Tensor
    greedy_positions: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences of one forward pass.

    Attributes:
        tokens: (sequences, length) int64, padded on the right with 0.
        keep: How many of the last positions anything is read from.
        reads: (2, r) int64: sequence and position (among the last ``keep``) of every logit row read.
        targets: One per request.
    """

    tokens: torch.Tensor
    keep: int
    reads: torch.Tensor
    targets: tuple[Target, ...]


def likelihood_batches(
    pairs: Sequence[Pair],
    max_length: int,
    size: Callable[[int], int],
    *,
    keep_all: bool,
    device: torch.device,
) -> list[Batch]:
    """Sort pairs into batches as lm-eval does: with its batch size every float comes out the same.

    Continuations that differ only in their last token share one sequence.

    Args:
        pairs: Contexts with continuations, both of at least one token.
        max_length: Longest sequence the model takes; longer ones lose tokens on the left.
        size: Sequences per batch, given the length of the longest one.
        keep_all: Compute the logits of every position, as lm-eval does; the output layer may
            round differently when it sees fewer.
        device: Where the tensors are put.
    """
    shared: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, (context, continuation) in enumerate(pairs):
        shared[(*context, *continuation[:-1])].append(i)
    groups = [sorted(g, key=lambda i: -len(pairs[i][1])) for g in shared.values()]
    groups.sort(key=lambda g: (-len(sum(pairs[g[0]], [])), sum(pairs[g[0]], [])))
    lengths = [min(len(sum(pairs[g[0]], [])) - 1, max_length) for g in groups]
    return [
        _batch(groups[part], pairs, max_length, keep_all, device)
        for part in chunked(lengths, size)
    ]


def chunked(lengths: Sequence[int], size: Callable[[int], int]) -> Iterator[slice]:
    """Cut descending lengths into batches of at most ``size(longest)`` sequences."""
    start = 0
    while start < len(lengths):
        stop = start + size(lengths[start])
        yield slice(start, stop)
        start = stop


def _batch(
    groups: Sequence[Sequence[int]],
    pairs: Sequence[Pair],
    max_length: int,
    keep_all: bool,
    device: torch.device,
) -> Batch:
    rows = [sum(pairs[group[0]], [])[-(max_length + 1) :][:-1] for group in groups]
    length = len(rows[0])
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device)
    first = [len(row) - len(pairs[group[0]][1]) for row, group in zip(rows, groups, strict=True)]
    keep = length if keep_all else length - min(first)
    reads: list[tuple[int, int]] = []
    targets = []
    for i, (row, group) in enumerate(zip(rows, groups, strict=True)):
        start, count = len(reads), len(row) - first[i]
        reads += [(i, position - (length - keep)) for position in range(first[i], len(row))]
        for request in group:
            wanted = pairs[request][1]
            positions = torch.arange(start, start + count, device=device)
            targets.append(
                Target(
                    request,
                    positions[: len(wanted)],  # lm-eval reads the likelihood from the first ones,
                    positions[-len(wanted) :],  # and the argmax from the last
                    torch.tensor(wanted, device=device),
                )
            )
    return Batch(tokens, keep, torch.tensor(reads, device=device).T.contiguous(), tuple(targets))
