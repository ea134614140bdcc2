"""What is kept of each task vector: trims by magnitude, and random drops with their rescaling.

Methods and modifiers share these. All take and return one value per expert; ``None`` keeps all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evomerge.arrays import Float32Array
from evomerge.kernels.plan import Band, RandomMask, RankedMask, RowBand, Sparsifier, Table
from evomerge.methods.base import TensorContext
from evomerge.methods.declared import PerExpert

if TYPE_CHECKING:
    from evomerge.statistics.histogram import MagnitudeHistogram

__all__ = [
    "band_statistics",
    "inside_bands",
    "random_factors",
    "random_masks",
    "random_statistics",
    "ranked_factors",
    "ranked_masks",
    "trim_factors",
    "upper_bands",
]

Sparse = tuple[Sparsifier | None, ...]


def band_statistics(scope: str, rescale: str = "none") -> tuple[str, ...]:
    """Name the statistics that bands of one scope, and what makes up for them, ask for."""
    of_scope = {"row": "row_magnitudes", "tensor": "magnitudes", "global": "model_magnitudes"}
    return tuple({of_scope[scope]: None} | ({} if rescale == "none" else {"magnitudes": None}))


def random_statistics(rescale: str) -> tuple[str, ...]:
    """Name the statistics that one way of rescaling asks for."""
    return ("moments", f"masked_{rescale}") if rescale in ("l1", "l2") else ()


def upper_bands(tensor: TensorContext, densities: PerExpert, scope: str) -> Sparse:
    """Keep the largest changes: whole elements, rounded down, one at least of a positive share.

    Args:
        tensor: Which tensor.
        densities: Share kept.
        scope: ``tensor`` counts the share in this tensor, ``global`` in the whole model.
    """
    return tuple(
        None if share >= 1.0 else Band(_magnitudes(tensor, i, scope).threshold(share))
        for i, share in enumerate(densities)
    )


def inside_bands(
    tensor: TensorContext, densities: PerExpert, gammas: PerExpert, scope: str
) -> Sparse:
    """Drop the largest changes, then keep the largest of the rest; counts are rounded down.

    Args:
        tensor: Which tensor.
        densities: Share kept.
        gammas: Share dropped on top; where less than that is to be dropped in all, only that.
        scope: ``row`` counts shares in each row, ``tensor`` in this tensor, ``global`` in the
            whole model.
    """
    return tuple(
        None if share >= 1.0 else _inside_band(tensor, i, share, gamma, scope)
        for i, (share, gamma) in enumerate(zip(densities, gammas, strict=True))
    )


def trim_factors(tensor: TensorContext, kept: Sparse, rescale: str) -> PerExpert:
    """Find what makes up for ``upper_bands`` or ``inside_bands``.

    Args:
        tensor: Which tensor.
        kept: The bands, none of them by row.
        rescale: ``l1`` and ``l2`` restore the norm of the task vector; ``none`` leaves what is kept
            as it is.
    """
    return tuple(
        _trim_factor(tensor.statistics.magnitudes(i), band, rescale)
        if isinstance(band, Band) and rescale != "none"
        else 1.0
        for i, band in enumerate(kept)
    )


def random_masks(tensor: TensorContext, densities: PerExpert) -> Sparse:
    """Keep each element with the same probability, its expert's density."""
    return tuple(
        None if share >= 1.0 else RandomMask(key=tensor.mask_key(i), keep=share)
        for i, share in enumerate(densities)
    )


def random_factors(tensor: TensorContext, densities: PerExpert, rescale: str) -> PerExpert:
    """Find what makes up for ``random_masks``.

    Args:
        tensor: Which tensor.
        densities: Share kept.
        rescale: ``inv_p`` divides by the share; ``l1`` and ``l2`` restore the norm of the task
            vector, which takes a read of the tensor; ``none`` leaves what is kept as it is.
    """
    return tuple(
        1.0 if share >= 1.0 else _random_factor(tensor, i, share, rescale)
        for i, share in enumerate(densities)
    )


def ranked_masks(
    tensor: TensorContext, densities: PerExpert, epsilons: PerExpert, rescale: str
) -> Sparse:
    """Keep larger changes with higher probability, by rank within the row.

    Args:
        tensor: Which tensor.
        densities: Mean probability.
        epsilons: Half the span of probabilities; cut to what lies within 0 to 1.
        rescale: ``inv_p`` divides each element by its probability; else see ``ranked_factors``.
    """
    return tuple(
        None
        if share >= 1.0
        else RankedMask(
            key=tensor.mask_key(i),
            low=share - _half_span(share, epsilon),
            high=share + _half_span(share, epsilon),
            knots=Table(tensor.statistics.rank_knots(i)),
            rescale=rescale == "inv_p",
        )
        for i, (share, epsilon) in enumerate(zip(densities, epsilons, strict=True))
    )


def ranked_factors(
    tensor: TensorContext, densities: PerExpert, epsilons: PerExpert, rescale: str
) -> PerExpert:
    """Find what restores a norm after ``ranked_masks``, in expectation.

    The expected norm of what is kept follows from the ranks alone, so no tensor is read.

    Args:
        tensor: Which tensor.
        densities: Mean probability.
        epsilons: Half the span of probabilities.
        rescale: ``l1`` or ``l2``; factors are 1 for ``inv_p`` and ``none``.
    """
    powers = {"l1": 1, "l2": 2}
    return tuple(
        1.0
        if share >= 1.0 or rescale not in powers
        else _expected_factor(
            tensor.statistics.row_knots(i), share, _half_span(share, epsilon), powers[rescale]
        )
        for i, (share, epsilon) in enumerate(zip(densities, epsilons, strict=True))
    )


def _magnitudes(tensor: TensorContext, expert: int, scope: str) -> MagnitudeHistogram:
    statistics = tensor.statistics
    return (
        statistics.model_magnitudes(expert) if scope == "global" else statistics.magnitudes(expert)
    )


def _inside_band(
    tensor: TensorContext, expert: int, share: float, gamma: float, scope: str
) -> Band | RowBand:
    if scope == "row":
        rows = tensor.statistics.row_magnitudes(expert)
        reached, dropped = _counts(rows.n, share, gamma)
        return RowBand(Table(rows.lower_edge(reached)), Table(rows.upper_edge(dropped)))
    magnitudes = _magnitudes(tensor, expert, scope)
    reached, dropped = _counts(magnitudes.n, share, gamma)
    return Band(magnitudes.lower_edge(reached), magnitudes.upper_edge(dropped))


def _counts(n: int, share: float, gamma: float) -> tuple[int, int]:
    """Count what reaches the lower edge of a band, and what is dropped above it."""
    kept = int(share * n)
    dropped = min(int(gamma * n), n - kept)
    return (kept + dropped if kept else 0), dropped  # nothing kept has no lower edge


def _trim_factor(magnitudes: MagnitudeHistogram, band: Band, rescale: str) -> float:
    if rescale == "l1":
        return _ratio(magnitudes.l1, magnitudes.kept_l1(band.low, band.high))
    return math.sqrt(_ratio(magnitudes.l2, magnitudes.kept_l2(band.low, band.high)))


def _random_factor(tensor: TensorContext, expert: int, share: float, rescale: str) -> float:
    if rescale == "none":
        return 1.0
    if rescale == "inv_p":
        return 1.0 / share if share > 0 else 0.0
    whole, key = tensor.statistics.moments(expert), tensor.mask_key(expert)
    if rescale == "l1":
        return _ratio(whole.abs_sum, tensor.statistics.masked_l1(expert, key, share))
    kept = tensor.statistics.masked_l2(expert, key, share)
    return math.sqrt(_ratio(whole.square_sum, kept))


def _expected_factor(knots: Float32Array, share: float, half_span: float, power: int) -> float:
    magnitudes = knots.astype(np.float64) ** power
    keep = np.linspace(share - half_span, share + half_span, knots.shape[1])
    ratio = _ratio(float(magnitudes.sum()), float((magnitudes * keep).sum()))
    return math.pow(ratio, 1 / power)


def _half_span(share: float, epsilon: float) -> float:
    return min(epsilon, share, 1.0 - share)


def _ratio(whole: float, kept: float) -> float:
    return whole / kept if kept > 0 else 1.0
