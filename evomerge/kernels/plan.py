"""The contract of the one pass: what a kernel needs to know to merge one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Agree",
    "Band",
    "Clamp",
    "Combine",
    "Conflict",
    "Consensus",
    "Elect",
    "ElementGate",
    "Largest",
    "RandomMask",
    "RankedMask",
    "RowBand",
    "ScoreMean",
    "Sparsifier",
    "Sum",
    "Table",
    "TensorPlan",
    "UniqueShared",
    "Variance",
]


@dataclass(frozen=True, eq=False)
class Table:
    """A small array inside a plan; equal by content.

    Rows are those of the last dimension: a tensor of shape (..., columns) has prod(...) rows, a
    1-D tensor one.

    Attributes:
        values: (rows,), (columns,) or (rows, knots), as its user says; float32, or float64 for
            factors, which kernels round to float32.
    """

    values: NDArray[np.floating]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(self.values.tobytes())


# What is kept of one source: the mask M_i, and for some the value it is kept with.


@dataclass(frozen=True)
class Band:
    """Keep the elements of one source whose magnitude lies in a band.

    Attributes:
        low: Smallest magnitude kept.
        high: Largest magnitude kept.
    """

    low: float
    high: float = float("inf")


@dataclass(frozen=True)
class RowBand:
    """A band of its own for each row.

    Attributes:
        low: (rows,) smallest magnitude kept.
        high: (rows,) largest magnitude kept.
    """

    low: Table
    high: Table


@dataclass(frozen=True)
class RandomMask:
    """Keep each element of one source with a probability (kernels/masks.py).

    Attributes:
        key: Names the random stream; the mask is a function of (key, element index) alone.
        keep: Probability in [0, 1]. The same key with a smaller probability keeps a subset.
    """

    key: int
    keep: float


@dataclass(frozen=True)
class RankedMask:
    """Keep with a probability that grows with the rank of |τ| within its row (DELLA).

    With r in [0, 1] the rank of |τ|, interpolated linearly between knots, an element is kept with
    probability p = low + (high - low) · r.

    Attributes:
        key: Names the random stream, as in ``RandomMask``.
        low: Keep probability of the smallest magnitude.
        high: Keep probability of the largest magnitude.
        knots: (rows, K), K ≥ 2, magnitudes at ranks 0, 1/(K-1), ..., 1; ascending along K.
        rescale: Whether kept elements are divided by p.
    """

    key: int
    low: float
    high: float
    knots: Table
    rescale: bool


@dataclass(frozen=True)
class Clamp:
    """Keep everything, but limit the magnitude (nearswap).

    Attributes:
        limit: Largest magnitude; beyond it the sign is kept.
    """

    limit: float


Sparsifier = Band | RowBand | RandomMask | RankedMask | Clamp


# A gate G in {0, 1} shared by all experts; every mask is multiplied by it.


@dataclass(frozen=True)
class Variance:
    """Open where the experts differ much (SCE).

    Attributes:
        at_least: Smallest variance of τ over experts (ddof = 1; before masks and coefficients)
            that opens the gate. One expert has variance 0.
    """

    at_least: float


@dataclass(frozen=True)
class Conflict:
    """Open where few experts change much at once (TATR).

    Attributes:
        at_most: Largest Σ_{i≠j} |τ_i||τ_j| (before masks and coefficients) that opens the gate.
    """

    at_most: float


@dataclass(frozen=True)
class Consensus:
    """Open where enough experts agree with the sum of all (TALL).

    Attributes:
        ratios: One per expert; expert i agrees where |x_i| ≥ ratio_i · |Σ_j x_j − x_i|, with x_i
            its contribution before the gate.
        at_least: Number of experts that must agree.
    """

    ratios: tuple[float, ...]
    at_least: int


ElementGate = Variance | Conflict | Consensus


# How the contributions x_i become one number.


@dataclass(frozen=True)
class Sum:
    """Σ x_i / D."""


@dataclass(frozen=True)
class Elect:
    """The sum of the x_i that have the elected sign, / D.

    Attributes:
        vote: What is summed to elect a sign: ``weighted`` the contributions x_i, ``unweighted`` the
            kept sources G · M_i τ_i, ``count`` the signs of x_i.
        zero: Sign elected by a vote of exactly zero; 0 elects nobody.
    """

    vote: Literal["weighted", "unweighted", "count"] = "weighted"
    zero: Literal[-1, 0, 1] = 1


@dataclass(frozen=True)
class Largest:
    """The x_i of largest magnitude; of equals the last (MagMax), to which all of the slope belongs.

    Kernels round to float32 before they compare, so what is equal there need not be in float64.
    """


@dataclass(frozen=True)
class Agree:
    """The elected sign of Σ x_i times the largest |x_i| that has it (EMR).

    Attributes:
        zero: Sign elected by a sum of exactly zero.
    """

    zero: Literal[-1, 1] = -1


@dataclass(frozen=True)
class UniqueShared:
    """unique_i · x_i where only expert i is kept, else the mean of the kept x_i (RAM).

    Attributes:
        unique: One factor per expert.
    """

    unique: tuple[float, ...]


@dataclass(frozen=True)
class ScoreMean:
    """Mean of the x_i, clipped, weighed by scores of competition (PCB).

    Σ x_i (a_i / |τ_i|) s_i / max(Σ s_i, 1e-12) with a_i = clip(|τ_i|, low_i, high_i),
    s_i = clip((score_i − cut_i) / (top_i − cut_i), 0, 1),
    score_i = exp(n · u_i²) · tanh(τ_i · Σ_j τ_j), u_i = a_i mapped to [0, 1], n experts. A span or
    a magnitude of zero counts as 1.

    Attributes:
        low: Per expert, the magnitude up to which magnitudes are raised; it maps to u = 0.
        high: Per expert, the magnitude to which larger ones are cut; it maps to u = 1.
        cut: Per expert, the score that maps to s = 0.
        top: Per expert, the score that maps to s = 1.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    cut: tuple[float, ...]
    top: tuple[float, ...]


Combine = Sum | Elect | Largest | Agree | UniqueShared | ScoreMean


@dataclass(frozen=True)
class TensorPlan:
    """One elementwise pass over one tensor.

    With θ0 the base, θ_i the experts, τ_i the sources (θ_i − θ0, or θ_i if not ``delta``), M_i what
    ``sparse[i]`` keeps, R_i and C_i the row and column tables, G the gate and
    x_i = c_i R_i C_i · G · M_i τ_i the contributions::

        out = offset + base_coefficient · θ0 + scale · combine_i(x_i) / D

    Arithmetic is float32 in recipe order, rounded to the output dtype once.

    Attributes:
        coefficients: c_i, one per expert, with any per-expert rescaling folded in before the vote.
        delta: Whether sources are task vectors; if not, the base is not read through them.
        base_coefficient: Factor of the base; 0 leaves it unread.
        offset: Added to every element.
        sparse: What each expert keeps; ``None`` keeps everything.
        row_scale: Per expert ``None`` or a (rows,) table of factors.
        column_scale: Per expert ``None`` or a (columns,) table of factors.
        gate: Where anything is kept at all; ``None`` is open everywhere.
        combine: How the contributions become one number.
        normalize_by_mask: Whether D is the sum of mixing coefficients over the experts that take
            part (kept, and under ``Elect`` elected), else 1. Where |D| < 1e-8, D = 1. Only ``Sum``
            and ``Elect`` divide.
        mixing: Coefficients that ``normalize_by_mask`` sums, where rescaling makes them differ
            from ``coefficients``; ``None`` means the same.
        scale: Factor on the merged task vector (λ).
        prepared: Names the tensors that take the place of the experts' (``methods.prepared``);
            ``None``: the experts themselves.
    """

    coefficients: tuple[float, ...]
    delta: bool = True
    base_coefficient: float = 1.0
    offset: float = 0.0
    sparse: tuple[Sparsifier | None, ...] | None = None
    row_scale: tuple[Table | None, ...] | None = None
    column_scale: tuple[Table | None, ...] | None = None
    gate: ElementGate | None = None
    combine: Combine = Sum()
    normalize_by_mask: bool = False
    mixing: tuple[float, ...] | None = None
    scale: float = 1.0
    prepared: str | None = None

    @property
    def reads_base(self) -> bool:
        """Whether the pass needs the base tensor at all."""
        return self.delta or self.base_coefficient != 0.0
