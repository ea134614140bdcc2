"""Keys and values of growing answers: room for what comes; few rows move when others leave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

__all__ = ["RoomyLayer", "closed_up", "keep_rows", "make_room"]

_ROOM = 64  # tokens: copies are rare, and little memory is taken for answers that end before


class RoomyLayer(DynamicLayer):
    """A layer of a cache that seldom copies what it has: a token is written behind the others.

    Args:
        layer: Keys and values so far, (sequences, heads, length, size).
    """

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values
        self._make_room(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``DynamicLayer``."""
        start, new = self.get_seq_length(), key_states.shape[-2]
        if start + new > self._all_keys.shape[-2]:
            self._make_room(new)
        self._all_keys[..., start : start + new, :] = key_states
        self._all_values[..., start : start + new, :] = value_states
        self._show(start + new)
        return self.keys, self.values

    def keep(self, n: int, moved: torch.Tensor, to: torch.Tensor) -> None:
        """Put some rows in the place of others, and keep the first n."""
        self.keys[to], self.values[to] = self.keys[moved], self.values[moved]
        self._all_keys, self._all_values = self._all_keys[:n], self._all_values[:n]
        self._show(self.get_seq_length())

    def _make_room(self, new: int) -> None:
        length = self.get_seq_length()
        self._all_keys = _with_room(self.keys, new + _ROOM)
        self._all_values = _with_room(self.values, new + _ROOM)
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys = self._all_keys[:, :, :length]
        self.values = self._all_values[:, :, :length]


def make_room(cache: DynamicCache) -> None:
    """Give the layers of a filled cache room for tokens; those with sliding windows stay."""
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = RoomyLayer(layer)


def closed_up(going: Sequence[int]) -> list[int]:
    """Order the rows that go on so that most stay where they are: the last ones fill the gaps.

    Args:
        going: Rows, in ascending order.

    Returns:
        Which row comes to each place.
    """
    n, stay = len(going), set(going)
    last = iter(row for row in going if row >= n)
    return [place if place in stay else next(last) for place in range(n)]


def keep_rows(cache: DynamicCache, rows: Sequence[int], device: torch.device) -> None:
    """Keep some rows of a cache, in this order.

    Args:
        cache: Of all sequences.
        rows: Which of them comes to each place.
        device: Where it is.
    """
    places = [place for place, row in enumerate(rows) if place != row]
    to, moved, order = (
        torch.tensor(x, dtype=torch.int64, device=device)
        for x in (places, [rows[place] for place in places], rows)
    )
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.keep(len(rows), moved, to)
        else:
            layer.batch_select_indices(order)


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    rows, heads, length, size = states.shape
    whole = states.new_empty(rows, heads, length + room, size)
    whole[:, :, :length] = states
    return whole
