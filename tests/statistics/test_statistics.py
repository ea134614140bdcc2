from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.statistics.gram import gram_matrix
from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.tensor import TensorStatistics


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), density=st.floats(0.01, 0.99), scale=st.sampled_from([1e-4, 1.0]))
def test_threshold_keeps_the_density_asked_for(seed: int, density: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    tau = (rng.standard_normal(50_000) * scale).astype(np.float32)
    threshold = MagnitudeHistogram.of(tau).threshold(density)
    assert abs((np.abs(tau) >= threshold).mean() - density) < 1e-3


def test_density_counts_exact_zeros() -> None:
    tau = np.zeros(1000, np.float32)
    tau[:100] = np.linspace(1, 2, 100, dtype=np.float32)
    threshold = MagnitudeHistogram.of(tau).threshold(0.05)
    assert (np.abs(tau) >= threshold).sum() == 50


def test_extreme_densities() -> None:
    histogram = MagnitudeHistogram.of(np.array([0.1, -3.0, 0.0], np.float32))
    assert histogram.threshold(1.0) == 0.0
    assert histogram.threshold(0.0) == float("inf")
    assert histogram.n == 3


def test_histograms_add_up_to_the_histogram_of_the_union() -> None:
    one, two = np.random.default_rng(0).standard_normal((2, 500)).astype(np.float32)
    union = MagnitudeHistogram.of(np.concatenate([one, two]))
    total = MagnitudeHistogram.of(one) + MagnitudeHistogram.of(two)
    assert np.array_equal(union.counts, total.counts)


def test_gram_matrix_holds_all_inner_products() -> None:
    vectors = np.random.default_rng(1).standard_normal((3, 1000)).astype(np.float32)
    expected = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    assert np.allclose(gram_matrix(list(vectors)), expected)


def test_task_vectors_are_taken_from_the_base_in_float32() -> None:
    base = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    expert = torch.tensor([1.5, 2.0], dtype=torch.bfloat16)
    statistics = TensorStatistics(base, [expert])
    assert abs(statistics.magnitudes(0).threshold(0.5) - 0.5) < 0.01
    assert statistics.model_gram[0, 1] == 1.5 + 4.0
