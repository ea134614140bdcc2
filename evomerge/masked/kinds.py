"""Which elements of a merge an expert needs, and how much of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from evomerge.models.tiles import row_blocks

__all__ = ["MaskKind", "Needed", "needed"]

MaskKind = Literal["tall", "emr"]
"""TALL-masks: Wang et al. 2024, Localizing Task Information for Improved Model Merging and
Compression, arXiv:2405.07813. EMR: Huang et al. 2024, EMR-Merging, arXiv:2405.17461."""


@dataclass(frozen=True, eq=False)
class Needed:
    """What an expert needs of one tensor of a merge.

    Attributes:
        mask: bool, of the tensor's shape.
        own: Sum of the expert's changes, by amount.
        kept: Sum of the merge's changes that the mask keeps, by amount.
    """

    mask: torch.Tensor
    own: float
    kept: float


def needed(
    kind: MaskKind, base: torch.Tensor, expert: torch.Tensor, merge: torch.Tensor, ratio: float
) -> Needed:
    """Find what an expert needs of one tensor.

    With the changes τ of the expert and τ_m of the merge, ``tall`` keeps an element where
    |τ| ≥ ratio · |τ_m − τ|, ``emr`` where τ · τ_m > 0.

    Args:
        kind: Of mask.
        base: Any floating dtype, as the others; computed in float32.
        expert: Of the same shape.
        merge: Of the same shape.
        ratio: Of ``tall``.
    """
    mask = torch.empty(base.shape, dtype=torch.bool)
    own_sum = kept_sum = 0.0
    for rows in row_blocks(base.shape):
        own, merged = (model[rows].float() - base[rows].float() for model in (expert, merge))
        if kind == "tall":
            mask[rows] = own.abs() >= ratio * (merged - own).abs()
        else:
            mask[rows] = (own.sign() == merged.sign()) & (own != 0)
        own_sum += float(own.double().abs().sum())
        kept_sum += float((merged.double().abs() * mask[rows]).sum())
    return Needed(mask, own_sum, kept_sum)
