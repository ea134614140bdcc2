"""Tensors with their positions put elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["placed"]


def placed(tensor: torch.Tensor, maps: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Put the positions of a tensor where they go, dimension by dimension.

    Args:
        tensor: Of an expert; left as it is.
        maps: Of each dimension: (n,) int64, the position that goes to each; (n, n) floating, how
            much of each goes there; ``None``: all stay.
    """
    for dim, one in enumerate(maps):
        if one is not None and one.ndim == 1:
            tensor = tensor.index_select(dim, one)
        elif one is not None:
            tensor = torch.tensordot(one.to(tensor.dtype), tensor, ([1], [dim])).movedim(0, dim)
    return tensor
