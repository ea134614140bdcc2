"""The one pass in float64, whole arrays at a time: slow, obvious, what other kernels must equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.kernels.masks import hash24, keep_threshold
from evomerge.kernels.plan import Band, RandomMask, TensorPlan

__all__ = ["merge_reference"]

FloatArray = NDArray[np.float64]


def merge_reference(
    plan: TensorPlan, base: torch.Tensor | None, experts: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Merge one tensor as the formula of ``TensorPlan`` reads.

    Args:
        plan: The pass.
        base: Base tensor of any floating dtype; may be ``None`` if the plan reads no base.
        experts: One tensor per coefficient, shaped like the base.

    Returns:
        float64 tensor of the same shape, not yet rounded to an output dtype.
    """
    theta_0 = _float32(base) if base is not None else np.zeros(experts[0].numel(), np.float32)
    # Task vectors are defined in float32: thresholds must see the same numbers everywhere.
    sources = [_float32(expert) - (theta_0 if plan.delta else 0) for expert in experts]
    contributions = [
        np.float64(c) * tau.astype(np.float64)
        for c, tau in zip(plan.coefficients, sources, strict=True)
    ]
    masks = [_kept(plan, i, tau) for i, tau in enumerate(sources)]
    if plan.elect == "sum":
        votes = sum(m * x for m, x in zip(masks, contributions, strict=True))
        elected = np.where(np.asarray(votes) >= 0, 1.0, -1.0)
        masks = [m & (np.sign(x) == elected) for m, x in zip(masks, contributions, strict=True)]
    merged = np.sum([m * x for m, x in zip(masks, contributions, strict=True)], axis=0)
    if plan.normalize_by_mask:
        mixing = plan.mixing if plan.mixing is not None else plan.coefficients
        divisor = np.sum([m * c for m, c in zip(masks, mixing, strict=True)], axis=0)
        merged = merged / np.where(np.abs(divisor) < 1e-8, 1.0, divisor)
    out = plan.base_coefficient * theta_0.astype(np.float64) + plan.scale * merged
    return torch.from_numpy(out).reshape(experts[0].shape)


def _float32(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).reshape(-1).numpy()
    return array


def _kept(plan: TensorPlan, i: int, tau: NDArray[np.float32]) -> NDArray[np.bool_]:
    match plan.sparse[i] if plan.sparse is not None else None:
        case None:
            return np.ones(tau.shape, bool)
        case Band(low=low, high=high):
            magnitude = np.abs(tau)
            return (magnitude >= np.float32(low)) & (magnitude <= np.float32(high))
        case RandomMask(key=key, keep=keep):
            index = np.arange(tau.size, dtype=np.uint64)
            kept: NDArray[np.bool_] = hash24(key, index) < np.uint32(keep_threshold(keep))
            return kept
