from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.execution.meter import relative_distance


@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_distance_is_the_norm_of_the_difference_over_the_norm(
    seed: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes: tuple[tuple[int, ...], ...] = ((), (7,), (5, 3), (2, 3, 4))
    ours = {str(s): torch.randn(s, generator=generator).to(dtype) for s in shapes}
    theirs = {name: torch.randn(t.shape, generator=generator).to(dtype) for name, t in ours.items()}
    flat = [
        np.concatenate([t.double().numpy().ravel() for t in m.values()]) for m in (ours, theirs)
    ]
    expected = np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])
    assert relative_distance(ours, theirs.__getitem__) == pytest.approx(expected, rel=1e-6)


def test_a_tensor_of_many_blocks_counts_whole() -> None:
    ones = {"a": torch.ones(1000, 700)}
    assert relative_distance(ones, lambda _: torch.full((1000, 700), 3.0)) == pytest.approx(2 / 3)
