"""NaN and infinity that a merge makes: counted in what is written, after rounding and folding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

__all__ = ["NonFinite", "count_elements"]


@dataclass(frozen=True)
class NonFinite:
    """What is not finite in a written checkpoint; false if everything is.

    Attributes:
        counts: NaN and infinite elements by tensor; only tensors that have some.
        n_tensors: Of the checkpoint.
    """

    counts: Mapping[str, int]
    n_tensors: int

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> NonFinite:
        """Make one from the counts of all tensors."""
        return cls({name: count for name, count in counts.items() if count}, len(counts))

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        if not self:
            return f"no NaN or infinite elements in {self.n_tensors} tensors"
        name = max(self.counts, key=lambda name: self.counts[name])
        return (
            f"{sum(self.counts.values())} NaN or infinite elements in {len(self.counts)} of "
            f"{self.n_tensors} tensors, e.g. {self.counts[name]} in {name}"
        )


def count_elements(tensor: torch.Tensor) -> int:
    """Count NaN and infinite elements of a tensor of any dtype."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return 0
    # Either end is NaN or infinite if any element is: one pass without a copy for the usual case.
    if all(math.isfinite(end) for end in torch.aminmax(tensor)):
        return 0
    return int((~torch.isfinite(tensor)).sum())
