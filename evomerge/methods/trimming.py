"""Which elements of whole tensors are kept: the largest, or those of the elected sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["largest", "same_sign"]


def largest(tensor: torch.Tensor, share: float) -> torch.Tensor:
    """Mark the share of largest magnitudes; equal ones are marked together."""
    n_dropped = tensor.numel() - int(share * tensor.numel())
    if n_dropped <= 0:
        return torch.ones_like(tensor, dtype=torch.bool)
    if n_dropped >= tensor.numel():
        return torch.zeros_like(tensor, dtype=torch.bool)
    return tensor.abs() > tensor.abs().flatten().kthvalue(n_dropped).values


def same_sign(parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Mark where each part has the sign of their sum; where that is zero, the sign of the total."""
    total = sum(parts[1:], parts[0])
    sign = total.sign()
    sign = torch.where(sign == 0, sign.sum().sign(), sign)
    return [part * sign > 0 for part in parts]
