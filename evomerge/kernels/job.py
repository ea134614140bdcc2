"""One tensor to merge, as kernels take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.kernels.plan import TensorPlan

__all__ = ["Job"]


@dataclass(frozen=True, eq=False)
class Job:
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
