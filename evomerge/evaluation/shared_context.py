"""Several continuations of one context: the context is run once, its keys and values are reused.

Choices of an item differ in their last few tokens; run apart, every one of them would pay for the
whole prompt again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from evomerge.evaluation.batches import Pair, Size, Target, chunked

__all__ = ["SharedBatch", "shared_batches", "sharing_requests"]


@dataclass(frozen=True)
class SharedBatch:
    """Contexts, run first, and their continuations, run on top of them.

    Attributes:
        contexts: (contexts, c) int64, padded on the left with 0.
        context_mask: (contexts, c) int64, 1 where there is a token.
        owners: (continuations,) int64: the context of each continuation.
        continuations: (continuations, s) int64 without their last tokens, padded on the right.
        reads: (2, rows) int64: continuation and position of each logit row after those of the
            contexts.
        targets: One per request; logit rows count the contexts' last ones first.
    """

    contexts: torch.Tensor
    context_mask: torch.Tensor
    owners: torch.Tensor
    continuations: torch.Tensor
    reads: torch.Tensor
    targets: tuple[Target, ...]


def sharing_requests(
    pairs: Sequence[Pair], requests: Sequence[int], max_length: int
) -> list[list[int]]:
    """Group the requests that are worth sharing a context; the others are not named.

    Worth it are contexts with several continuations of more than one token, all within the model's
    context; continuations of one token share everything without this.

    Args:
        pairs: Contexts with continuations.
        requests: Which of the pairs.
        max_length: Longest sequence the model takes.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for request in requests:
        groups[tuple(pairs[request][0])].append(request)
    return [
        group
        for context, group in groups.items()
        if len({tuple(pairs[i][1][:-1]) for i in group}) > 1
        and len(context) + max(len(pairs[i][1]) for i in group) <= max_length
    ]


def shared_batches(
    pairs: Sequence[Pair], groups: Sequence[Sequence[int]], size: Size, device: torch.device
) -> list[SharedBatch]:
    """Sort groups of requests with one context each into batches.

    Args:
        pairs: Contexts with continuations.
        groups: What ``sharing_requests`` returned.
        size: Sequences per batch; a batch holds as many groups as fit, or a part of one.
        device: Where the tensors are put.
    """
    parts = (part for group in groups for part in _parts(pairs, group, size))
    ordered = sorted(parts, key=lambda group: -_length(pairs, group))
    width = max((len(group) for group in ordered), default=1)
    cuts = chunked(
        [_length(pairs, group) for group in ordered], lambda length: max(1, size(length) // width)
    )
    return [_batch(pairs, ordered[cut], device) for cut in cuts]


def _parts(pairs: Sequence[Pair], group: Sequence[int], size: Size) -> Iterator[Sequence[int]]:
    """Cut a group that fits into no batch, as that of all texts which are scored whole."""
    if len(group) <= size(_length(pairs, group)):
        yield group
        return
    ordered = sorted(group, key=lambda i: -len(pairs[i][1]))
    lengths = [sum(map(len, pairs[i])) for i in ordered]
    yield from (ordered[cut] for cut in chunked(lengths, size))


def _length(pairs: Sequence[Pair], group: Sequence[int]) -> int:
    return len(pairs[group[0]][0]) + max(len(pairs[i][1]) for i in group)


def _batch(
    pairs: Sequence[Pair], groups: Sequence[Sequence[int]], device: torch.device
) -> SharedBatch:
    contexts = [pairs[group[0]][0] for group in groups]
    requests = [(owner, request) for owner, group in enumerate(groups) for request in group]
    longest = max(map(len, contexts))
    width = max(len(pairs[request][1]) for _, request in requests) - 1
    reads: list[tuple[int, int]] = []
    targets, continuations = [], []
    for i, (owner, request) in enumerate(requests):
        tokens = pairs[request][1]
        start = len(groups) + len(reads)
        rows = torch.tensor([owner, *range(start, start + len(tokens) - 1)], device=device)
        reads += [(i, position) for position in range(len(tokens) - 1)]
        continuations.append(tokens[:-1] + [0] * (width - len(tokens) + 1))
        targets.append(Target(request, torch.tensor(tokens, device=device), rows, rows))

    def tensor(rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=device)

    return SharedBatch(
        contexts=tensor([[0] * (longest - len(c)) + c for c in contexts]),
        context_mask=tensor([[0] * (longest - len(c)) + [1] * len(c) for c in contexts]),
        owners=torch.tensor([owner for owner, _ in requests], device=device),
        continuations=tensor(continuations),
        reads=tensor(reads).T.contiguous(),
        targets=tuple(targets),
    )
