"""Keys and values of several sequences: some sequences are kept, others are put beside them.

Columns are aligned at the end: sequences of different lengths have padding before them.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

__all__ = ["append_rows", "drop_columns", "select_rows", "stacked"]


def select_rows(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Keep some sequences of a cache, whose layers may be on several devices.

    Args:
        cache: Changed.
        rows: (kept,) int64; may repeat.
    """
    for layer in cache.layers:
        keys = getattr(layer, "keys", None)
        own = rows if keys is None else rows.to(keys.device)
        layer.batch_select_indices(own)  # type: ignore[union-attr]


def append_rows(cache: DynamicCache, others: DynamicCache) -> None:
    """Put other sequences behind those of a cache.

    Args:
        cache: Changed; of a model for which ``has_plain_cache``.
        others: Of the same model.
    """
    for own, other in zip(cache.layers, others.layers, strict=True):
        if own.keys is None or other.keys is None:  # a layer that reads another's
            continue
        own.keys = stacked(own.keys, other.keys, dim=-2)
        own.values = stacked(own.values, other.values, dim=-2)  # type: ignore[arg-type]
        if isinstance(own, DynamicSlidingWindowLayer):
            own.cumulative_length = max(own.get_seq_length(), other.get_seq_length())


def drop_columns(cache: DynamicCache, n: int) -> None:
    """Leave out the first n tokens of every sequence, where they are padding.

    Args:
        cache: Changed.
        n: Fewer than there are tokens.
    """
    for layer in cache.layers:
        if n == 0 or layer.keys is None or layer.values is None:
            continue
        left = layer.get_seq_length() - n
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = left
        # A window may have left out these and more.
        layer.keys, layer.values = layer.keys[..., -left:, :], layer.values[..., -left:, :]


def stacked(above: torch.Tensor, below: torch.Tensor, dim: int) -> torch.Tensor:
    """Put sequences behind others, zeros before the shorter ones.

    Args:
        above: Sequences first.
        below: The same but for the number of sequences and their length.
        dim: Of the length, counted from the end.
    """
    length = max(above.shape[dim], below.shape[dim])

    def padded(one: torch.Tensor) -> torch.Tensor:
        return pad(one, (*(0, 0) * (-1 - dim), length - one.shape[dim], 0))

    return torch.cat([padded(above), padded(below)])
