"""One tensor to merge, or to find slopes for, as kernels take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.kernels.plan import TensorPlan

__all__ = ["MergeJob", "SlopeJob"]


@dataclass(frozen=True, eq=False)
class MergeJob:
    """One tensor to merge.

    Attributes:
        plan: The pass.
        base: Base tensor; ``None`` counts as zeros.
        experts: One tensor per coefficient, shaped like ``out``, on the same device.
        out: Contiguous tensor of the output dtype; overwritten.
    """

    plan: TensorPlan
    base: torch.Tensor | None
    experts: Sequence[torch.Tensor]
    out: torch.Tensor

    @property
    def columns(self) -> int:
        """Length of a row: the last dimension."""
        return self.out.shape[-1] if self.out.ndim else 1


@dataclass(frozen=True, eq=False)
class SlopeJob:
    """One tensor along whose plan an objective has slopes.

    Attributes:
        plan: The pass that merged the tensor.
        base: Base tensor; ``None`` counts as zeros.
        experts: One tensor per coefficient, shaped like ``gradient``, on the same device.
        gradient: The objective's slope along each element of the merged tensor; floating.
    """

    plan: TensorPlan
    base: torch.Tensor | None
    experts: Sequence[torch.Tensor]
    gradient: torch.Tensor

    @property
    def merge(self) -> MergeJob:
        """The merge whose output the gradient is along, with the gradient in the output's place."""
        return MergeJob(self.plan, self.base, self.experts, self.gradient)
