from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.statistics.tensor import TensorStatistics
from evomerge.statistics.variance import variance_across
from tests.statistics.sets import ModelSet, model_set, model_sets


@settings(max_examples=40, deadline=None)
@given(models=model_sets)
def test_variance_equals_numpy(models: ModelSet) -> None:
    tau = models.task_vectors.reshape(len(models.experts), -1)
    if len(tau) == 1:
        assert (variance_across(tau) == 0).all()
    else:
        expected = tau.astype(np.float64).var(axis=0, ddof=1)
        assert np.allclose(variance_across(tau), expected, rtol=1e-6, atol=1e-30)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.01, 1.0), k=st.integers(2, 4))
def test_selection_and_energies_equal_a_sort_over_varying_elements(
    seed: int, share: float, k: int
) -> None:
    models = model_set(seed, shape=(30_000,), k=k)
    for expert in models.experts:  # a third of the elements nobody changes
        expert[::3] = models.base[::3]
    tau = models.task_vectors.astype(np.float64)
    variance = tau.var(axis=0, ddof=1)
    histogram = models.statistics.variance
    threshold = histogram.threshold(share)
    kept = variance >= threshold
    assert abs(kept.sum() / 20_000 - share) < 1e-3
    assert abs(histogram.count(threshold) - kept.sum()) < 1e-3 * 20_000
    energies = histogram.energies(threshold)
    assert energies == pytest.approx((tau[:, kept] ** 2).sum(axis=1), rel=1e-2)


def test_keeping_everything_that_varies_keeps_the_smallest_variance() -> None:
    models = model_set(0, shape=(1000,), k=2, dtype=torch.bfloat16, scale=1e-4)
    tau = models.task_vectors
    threshold = models.statistics.variance.threshold(1.0)
    varying = tau[0] != tau[1]
    assert 0 < varying.sum() < 1000
    assert np.array_equal(variance_across(tau) >= np.float32(threshold), varying)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_equal_experts_have_no_variance_and_all_energy(k: int) -> None:
    base = torch.randn(500, generator=torch.Generator().manual_seed(0))
    histogram = TensorStatistics(base, [base * 1.1] * k).variance
    assert histogram.threshold(0.1) == 0.0
    tau = (base * 1.1 - base).double()
    assert histogram.energies(0.0) == pytest.approx([float(tau @ tau)] * k)
