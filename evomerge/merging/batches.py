"""Cuts a sequence into runs of bounded size: shards of a checkpoint, batches of a merge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["in_batches"]

T = TypeVar("T")


def in_batches(items: Iterable[T], size_of: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Fill batches one after another, each up to a size; a larger item has a batch of its own.

    Args:
        items: Their order is kept.
        size_of: Size of one item, in any unit.
        limit: Largest size of a batch, in that unit.

    Yields:
        Batches; none is empty.
    """
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and size + size_of(item) > limit:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch
