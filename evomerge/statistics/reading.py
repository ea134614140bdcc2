"""One tensor of a base and its experts, read in float32 tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from evomerge.arrays import Float32Array

__all__ = ["TILE", "LazyTensor", "TensorReader", "flat_tiles", "read_tile", "row_tiles"]

TILE = 1 << 18  # elements; the temporaries of one tile stay in the processor's cache

LazyTensor = torch.Tensor | Callable[[], torch.Tensor]


class TensorReader:
    """Reads tiles of models and of task vectors, so that nobody holds copies of whole tensors.

    Models are numbered with the base first (if any), then the experts.

    Args:
        base: Base tensor, or ``None``.
        experts: One tensor per expert, shaped like the base.
    """

    def __init__(self, base: LazyTensor | None, experts: Sequence[LazyTensor]) -> None:
        self._sources = (*(() if base is None else (base,)), *experts)
        self.n_experts = len(experts)
        self.n_bases = len(self._sources) - len(experts)

    @property
    def everyone(self) -> tuple[int, ...]:
        """Numbers of all models."""
        return tuple(range(len(self._sources)))

    def pair(self, expert: int) -> tuple[int, ...]:
        """Number the models a task vector is made of: the base (if any) and the expert."""
        return (*range(self.n_bases), self.n_bases + range(self.n_experts)[expert])

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.tensor(0).shape)

    @property
    def n(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def columns(self) -> int:
        """Length of a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(np.prod(self.shape[:-1]))

    def tensor(self, model: int) -> torch.Tensor:
        """Return a model's tensor."""
        source = self._sources[model]
        return source if isinstance(source, torch.Tensor) else source()

    def model(self, model: int) -> Iterator[Float32Array]:
        """Read a model; yields (m,) float32."""
        flat = self._flat(model)
        return (read_tile(flat, part) for part in flat_tiles(self.n))

    def models(self) -> Iterator[Float32Array]:
        """Read all models together; yields (number of models, m) float32."""
        tiles = zip(*[self.model(i) for i in self.everyone], strict=True)
        return (np.stack(tile) for tile in tiles)

    def task_vector(self, expert: int) -> Iterator[Float32Array]:
        """Read an expert's task vector; yields (m,) float32."""
        tiles = zip(*[self.model(i) for i in self.pair(expert)], strict=True)
        return (tile[-1] - tile[0] if self.n_bases else tile[0] for tile in tiles)

    def task_vectors(self) -> Iterator[Float32Array]:
        """Read all task vectors together; yields (k, m) float32."""
        return (self._minus_base(tile) for tile in self.models())

    def model_rows(self) -> Iterator[Float32Array]:
        """Read whole rows of all models; yields (number of models, r, columns) float32."""
        return self._rows(self.everyone)

    def task_rows(self) -> Iterator[Float32Array]:
        """Read whole rows of all task vectors; yields (k, r, columns) float32."""
        return (self._minus_base(tile) for tile in self.model_rows())

    def base_and_expert_rows(self, expert: int) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Read whole rows of the base (zeros if there is none) and of an expert."""
        for tile in self._rows(self.pair(expert)):
            yield (tile[0] if self.n_bases else np.zeros_like(tile[0])), tile[-1]

    def _rows(self, models: Sequence[int]) -> Iterator[Float32Array]:
        flats = [self._flat(model) for model in models]
        for rows in row_tiles(self.rows, self.columns):
            part = slice(rows.start * self.columns, rows.stop * self.columns)
            tiles = np.stack([read_tile(flat, part) for flat in flats])
            yield tiles.reshape(len(flats), -1, self.columns)

    def _flat(self, model: int) -> torch.Tensor:
        return self.tensor(model).detach().reshape(-1)  # once: other layouts are copied by it

    def _minus_base(self, models: Float32Array) -> Float32Array:
        return models[1:] - models[0] if self.n_bases else models


def flat_tiles(n: int) -> Iterator[slice]:
    """Cut n flattened elements into tiles."""
    for start in range(0, n, TILE):
        yield slice(start, min(start + TILE, n))


def row_tiles(rows: int, columns: int) -> Iterator[slice]:
    """Cut a matrix into tiles of whole rows.

    Yields:
        Slices of rows; one row at least, however long it is.
    """
    step = max(1, TILE // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def read_tile(tensor: torch.Tensor, positions: slice) -> Float32Array:
    """Read elements of a flat tensor of any floating dtype.

    Args:
        tensor: Flat.
        positions: Which flattened elements.

    Returns:
        (m,) float32; may share memory with the tensor, so never write into it.
    """
    array: Float32Array = tensor[positions].to("cpu", torch.float32).numpy()
    return array
