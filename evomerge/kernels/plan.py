"""The contract of the one pass: what a kernel needs to know to merge one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Band", "RandomMask", "TensorPlan"]


@dataclass(frozen=True)
class Band:
    """Keep the elements of one task vector whose magnitude lies in a band.

    Attributes:
        low: Smallest magnitude kept.
        high: Magnitudes above it are dropped.
    """

    low: float
    high: float = float("inf")


@dataclass(frozen=True)
class RandomMask:
    """Keep each element of one task vector with a probability (kernels/masks.py).

    Attributes:
        key: Names the random stream; the mask is a function of (key, element index) alone.
        keep: Probability in [0, 1]. The same key with a smaller probability keeps a subset.
    """

    key: int
    keep: float


@dataclass(frozen=True)
class TensorPlan:
    """One elementwise pass over one tensor.

    With θ0 the base, θ_i the experts, τ_i the sources (θ_i − θ0, or θ_i if not ``delta``), c_i the
    coefficients and M_i ∈ {0, 1} the masks::

        out = base_coefficient · θ0 + scale · Σ_i c_i M_i τ_i / D

    ``M_i`` keeps what ``sparse[i]`` keeps and, under ``elect``, only the elements whose sign of
    c_i τ_i agrees with the elected sign; ``D`` is ``Σ_i c_i M_i`` if ``normalize_by_mask``, else 1.
    Arithmetic is float32 in recipe order, rounded to the output dtype once.

    Attributes:
        coefficients: One per expert, with any per-expert rescaling folded in before the vote.
        delta: Whether sources are task vectors; if not, the base is not read through them.
        base_coefficient: Factor of the base; 0 leaves it unread.
        sparse: What each expert keeps; ``None`` keeps everything.
        elect: ``sum`` elects the sign of Σ_i c_i τ_i (a zero sum elects +), ``none`` holds no vote.
        normalize_by_mask: Divide by the sum of surviving mixing coefficients; where nothing
            survives (or they cancel below 1e-8), divide by 1.
        mixing: Coefficients that ``normalize_by_mask`` sums, where rescaling makes them differ
            from ``coefficients``; ``None`` means the same.
        scale: Factor on the merged task vector (λ).
    """

    coefficients: tuple[float, ...]
    delta: bool = True
    base_coefficient: float = 1.0
    sparse: tuple[Band | RandomMask | None, ...] | None = None
    elect: Literal["none", "sum"] = "none"
    normalize_by_mask: bool = False
    mixing: tuple[float, ...] | None = None
    scale: float = 1.0

    @property
    def reads_base(self) -> bool:
        """Whether the pass needs the base tensor at all."""
        return self.delta or self.base_coefficient != 0.0
