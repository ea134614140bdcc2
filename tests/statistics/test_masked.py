from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.kernels.masks import hash24, keep_threshold
from tests.statistics.sets import model_set


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    key=st.integers(0, 2**63 - 1),
    keep=st.floats(0.0, 1.0),
    n=st.sampled_from([1, 300, 16_384]),
)
def test_sums_over_a_mask_are_exact_for_small_tensors(
    seed: int, key: int, keep: float, n: int
) -> None:
    models = model_set(seed, shape=(n,), k=2)
    kept = hash24(key, np.arange(n, dtype=np.uint64)) < keep_threshold(keep)
    tau = models.task_vectors[1][kept].astype(np.float64)
    statistics = models.statistics
    assert statistics.masked_l1(1, key, keep) == pytest.approx(np.abs(tau).sum(), rel=1e-9)
    assert statistics.masked_l2(1, key, keep) == pytest.approx((tau**2).sum(), rel=1e-9)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.77, 1.0])
def test_sums_over_a_mask_are_close_for_large_tensors(keep: float) -> None:
    n = 600_000  # several tiles
    models = model_set(7, shape=(n,), k=1)
    kept = hash24(123, np.arange(n, dtype=np.uint64)) < keep_threshold(keep)
    tau = models.task_vectors[0][kept].astype(np.float64)
    found = models.statistics.masked_l1(0, 123, keep)
    assert found == pytest.approx(np.abs(tau).sum(), rel=1e-2)


def test_streams_do_not_mix() -> None:
    statistics = model_set(0, shape=(2000,), k=2).statistics
    first = statistics.masked_l1(0, 1, 0.5)
    assert statistics.masked_l1(0, 2, 0.5) != first
    assert statistics.masked_l1(1, 1, 0.5) != first
    assert statistics.masked_l1(0, 1, 0.5) == first
