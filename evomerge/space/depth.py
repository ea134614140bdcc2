"""How layers share genes: groups, or control points with interpolation between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.models.architecture import TensorRole
from evomerge.space.spec import Boundaries, ControlPoints, Depth, Groups, Importance

__all__ = ["Cell", "Place", "families", "group_starts", "module_cells", "peak", "shares_matrix"]


@dataclass(frozen=True, order=True)
class Place:
    """Where genes sit.

    Attributes:
        module: Name of the module group.
        depth: Position of the depth group or control point, from 0.
    """

    module: str
    depth: int


@dataclass(frozen=True)
class Cell:
    """Tensors that share all their parameter values.

    Attributes:
        module: Name of the module group.
        layers: Half-open range of layers.
        shares: Places whose values are mixed here, with shares that sum to one.
        tensors: What it merges: role by tensor name, never empty.
    """

    module: str
    layers: tuple[int, int]
    shares: tuple[tuple[Place, float], ...]
    tensors: Mapping[str, TensorRole]

    @property
    def place(self) -> Place:
        """The place with the largest share."""
        return max(self.shares, key=lambda pair: pair[1])[0]


def module_cells(
    module: str, depth: Depth, n_layers: int, tensors: Mapping[str, TensorRole]
) -> tuple[Cell, ...]:
    """Divide the tensors of one module group.

    Args:
        module: Name of the group.
        depth: How; ``Importance`` must have been resolved.
        n_layers: Layers of the models.
        tensors: Role by name, of this group. Layers without one get no cell.
    """
    if not tensors:
        return ()
    if isinstance(depth, ControlPoints):
        present = sorted({role.layer for role in tensors.values()})
        starts = [0, *present[1:]]
        hats = _hats(n_layers, depth.control_points)[present]
        shares = [_nonzero(module, row) for row in _independent(hats)]
    else:
        starts = group_starts(depth, n_layers)
        shares = [((Place(module, position), 1.0),) for position in range(len(starts))]
    spans = pairwise([*starts, n_layers])
    cells = (
        Cell(
            module, span, mixed, {n: r for n, r in tensors.items() if span[0] <= r.layer < span[1]}
        )
        for span, mixed in zip(spans, shares, strict=True)
    )
    return tuple(cell for cell in cells if cell.tensors)


def group_starts(depth: Depth, n_layers: int) -> list[int]:
    """List the first layer of every depth group."""
    match depth:
        case Boundaries(boundaries=boundaries):
            return list(boundaries)
        case Groups(groups=n):
            return [i * n_layers // n for i in range(n)]
        case "per_layer":
            return list(range(n_layers))
        case "global":
            return [0]
    assert not isinstance(depth, (Importance, ControlPoints)), "resolved; has no groups"
    raise AssertionError(f"unknown depth {depth!r}")


def shares_matrix(cells: Sequence[Cell], places: Sequence[Place]) -> FloatArray:
    """Lay out the cells' shares as a matrix (cells, places); its columns are independent.

    Independence means that the cells' values determine those of the places.
    """
    return np.array([[dict(cell.shares).get(place, 0.0) for place in places] for cell in cells])


def peak(cells: Sequence[Cell], place: Place) -> Cell:
    """Find the cell where a place counts most."""
    return max(cells, key=lambda cell: dict(cell.shares).get(place, 0.0))


def _hats(n: int, n_points: int) -> FloatArray:
    """Shares (n, n_points) of evenly spread points in n layers: piecewise linear, rank n_points."""
    at = np.linspace(0.0, n_points - 1, n).round(12)  # an exact hit takes one point only
    hats: FloatArray = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(n_points)))
    return hats


def _independent(hats: FloatArray) -> FloatArray:
    """Give every layer to its nearest point where there are fewer layers than points around."""
    n_used = int((hats > 0).any(axis=0).sum())
    if np.linalg.matrix_rank(hats) == n_used:
        return hats
    nearest: FloatArray = np.eye(hats.shape[1])[hats.argmax(axis=1)]
    return nearest


def _nonzero(module: str, row: FloatArray) -> tuple[tuple[Place, float], ...]:
    return tuple((Place(module, i), float(share)) for i, share in enumerate(row) if share > 0)


def families(depths: Mapping[str, int]) -> dict[str, str]:
    """Name the family of every gene that sits at a depth.

    Genes of a family are called alike but for the number of their depth, such as
    ``coefficient.attention.0.math`` and ``coefficient.attention.1.math``.

    Args:
        depths: As ``SearchSpace.depths``.
    """
    return {gene: _without(str(depth), gene) for gene, depth in depths.items()}


def _without(depth: str, gene: str) -> str:
    parts = gene.split(".")
    parts.remove(depth)  # a module or expert of that name leaves the same parts
    return ".".join(parts)
