"""Missing tokens as mixtures of shared ones, and rows made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["BLOCK_BYTES", "Mix", "mixed_rows"]

BLOCK_BYTES = 64 << 20
"""About what one temporary takes; several are alive at once."""


@dataclass(frozen=True, eq=False)
class Mix:
    """Vectors approximated by linear combinations of others.

    Attributes:
        chosen: (n, k) int64: which vectors.
        coefficients: (n, k) float32: how much of each; 0 where fewer than k are needed.
    """

    chosen: torch.Tensor
    coefficients: torch.Tensor

    @classmethod
    def joined(cls, parts: list[Mix]) -> Mix:
        """Put mixtures of several blocks below one another."""
        return cls(
            torch.cat([part.chosen for part in parts]),
            torch.cat([part.coefficients for part in parts]),
        )


def mixed_rows(mix: Mix, vectors: torch.Tensor) -> torch.Tensor:
    """Make the combinations, block by block.

    Args:
        mix: Of m vectors.
        vectors: (n, d) or (n,), any floating dtype: what is combined.

    Returns:
        (m, d) or (m,), float32, on the CPU.
    """
    width, k = vectors[0].numel(), mix.chosen.shape[1]
    step = max(1, BLOCK_BYTES // (4 * k * width))
    blocks = zip(mix.chosen.split(step), mix.coefficients.split(step), strict=True)
    flat = vectors.reshape(len(vectors), width)
    made = [(c[:, None] @ flat[rows].float())[:, 0] for rows, c in blocks]
    return torch.cat(made).reshape(-1, *vectors.shape[1:])
