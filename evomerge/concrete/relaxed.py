"""Masks between 0 and 1 drawn from logits (the binary Concrete distribution), and slopes through.

Source: Tang et al. 2023, Concrete Subspace Learning based Interference Elimination for Multi-task
Model Fusion, arXiv:2312.06173; Maddison et al. 2017, arXiv:1611.00712.
"""

from __future__ import annotations

import torch

from evomerge.seeds import seed_for

__all__ = ["discrete", "logistic_noise", "logit_slopes", "relaxed", "rescaled"]


def logistic_noise(shape: tuple[int, ...], seed: int, *labels: str | int) -> torch.Tensor:
    """Draw log u - log(1 - u), u uniform in (0, 1): float32, on the CPU.

    Args:
        shape: Of the noise.
        seed: Of all draws.
        labels: What this one is for.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, *labels))
    return torch.rand(shape, generator=generator).logit(eps=torch.finfo(torch.float32).eps)


def relaxed(logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
    """Draw a mask: σ((x + noise) / temperature)."""
    return torch.sigmoid((logits + noise) / temperature)


def discrete(logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Draw a mask of zeros and ones, of 1 with the probability σ(x)."""
    return (logits + noise > 0).to(logits.dtype)


def rescaled(mask: torch.Tensor) -> torch.Tensor:
    """Divide a tensor's mask by its mean, so that it leaves the tensor as large on average.

    A mask of zeros alone stays so.
    """
    mean = mask.mean()
    return mask / mean if mean > 0 else mask


def logit_slopes(mask: torch.Tensor, slopes: torch.Tensor, temperature: float) -> torch.Tensor:
    """Turn slopes along the rescaled mask into slopes along the logits.

    Args:
        mask: As ``relaxed`` draws it.
        slopes: Along ``rescaled(mask)``, of the same shape.
        temperature: Of the draw.
    """
    mean = mask.mean()
    along_mask = (slopes - (slopes * mask).mean() / mean) / mean
    return along_mask * mask * (1 - mask) / temperature
