"""Random sets of models, as Hypothesis draws them, and their task vectors the slow way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.statistics.tensor import TensorStatistics


@dataclass(frozen=True)
class ModelSet:
    base: torch.Tensor | None
    experts: list[torch.Tensor]

    @property
    def statistics(self) -> TensorStatistics:
        return TensorStatistics(self.base, self.experts)

    @property
    def models(self) -> NDArray[np.float32]:
        """(k or k + 1, *shape), the base first."""
        tensors = [*([] if self.base is None else [self.base]), *self.experts]
        return np.stack([tensor.float().numpy() for tensor in tensors])

    @property
    def task_vectors(self) -> NDArray[np.float32]:
        """(k, *shape)."""
        return self.models if self.base is None else self.models[1:] - self.models[0]


def model_set(
    seed: int,
    *,
    shape: tuple[int, ...],
    k: int = 3,
    dtype: torch.dtype = torch.float32,
    has_base: bool = True,
    scale: float = 0.01,
) -> ModelSet:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator) * 0.05
    # Cubed normals: heavy tails, as real task vectors have.
    experts = [base + scale * torch.randn(shape, generator=generator) ** 3 for _ in range(k)]
    return ModelSet(base.to(dtype) if has_base else None, [e.to(dtype) for e in experts])


shapes = st.sampled_from([(), (1,), (700,), (40, 33), (1, 900), (300, 1), (4, 7, 50)])

model_sets = st.builds(
    model_set,
    seed=st.integers(0, 10_000),
    shape=shapes,
    k=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    has_base=st.booleans(),
    scale=st.sampled_from([1e-5, 0.01, 3.0]),
)
