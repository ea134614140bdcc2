"""One tensor of a candidate that is to be merged."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evomerge.kernels.plan import TensorPlan

__all__ = ["PlannedTensor"]


@dataclass(frozen=True, eq=False)
class PlannedTensor:
    """What to merge and where to; the tensors of base and experts are found by name.

    Attributes:
        name: Of the tensor.
        plan: The pass.
        out: Contiguous tensor that is overwritten.
    """

    name: str
    plan: TensorPlan
    out: torch.Tensor
