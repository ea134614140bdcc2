from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.tally import EXACT
from tests.statistics.sets import ModelSet, model_set, model_sets

shares = st.floats(0.001, 0.999)


def heavy(seed: int, n: int = 70_000, scale: float = 1.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) ** 3 * scale).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), density=shares, scale=st.sampled_from([1e-30, 1e-4, 1.0, 1e10]))
def test_threshold_keeps_the_density_asked_for(seed: int, density: float, scale: float) -> None:
    tau = heavy(seed, scale=scale)
    threshold = MagnitudeHistogram.of(tau).threshold(density)
    assert abs((np.abs(tau) >= threshold).mean() - density) < 1e-3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), density=shares)
def test_among_ties_of_bfloat16_differences_the_threshold_is_that_of_a_sort(
    seed: int, density: float
) -> None:
    models = model_set(seed, shape=(70_000,), k=1, dtype=torch.bfloat16, scale=1e-4)
    magnitude = np.sort(np.abs(models.task_vectors[0]))[::-1]
    kth = magnitude[max(0, int(np.ceil(density * magnitude.size)) - 1)]
    threshold = models.statistics.magnitudes(0).threshold(density)
    kept, wanted = (magnitude >= np.float32(threshold)).mean(), (magnitude >= kth).mean()
    assert abs(kept - wanted) < 1e-3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 3000), density=st.floats(0.0, 1.0))
def test_every_order_statistic_of_a_small_tensor_is_that_of_a_sort(
    seed: int, n: int, density: float
) -> None:
    tau = heavy(seed, n)
    histogram = MagnitudeHistogram.of(tau)
    ordered = np.sort(np.abs(tau))
    kept = min(int(density * n), n - 1)
    assert (ordered >= np.float32(histogram.lower_edge(kept))).sum() == kept
    assert (ordered > np.float32(histogram.upper_edge(kept))).sum() == kept
    assert histogram.quantile(density) == ordered[int(density * (n - 1))]
    assert histogram.kept_l1(histogram.lower_edge(kept)) == pytest.approx(
        ordered[n - kept :].astype(np.float64).sum()
    )


def test_a_positive_share_keeps_one_element_at_least() -> None:
    histogram = MagnitudeHistogram.of(np.array([1.0, 3.0, 2.0], np.float32))
    assert histogram.threshold(1e-9) == 3.0
    assert histogram.threshold(0.0) == float("inf")


def test_tensors_that_are_small_apart_and_large_together_add_up() -> None:
    parts = [heavy(seed, EXACT - 10) for seed in range(2)]
    whole = MagnitudeHistogram.of(np.concatenate(parts))
    total = MagnitudeHistogram.union(MagnitudeHistogram.of(part) for part in parts)
    assert np.array_equal(whole.buckets, total.buckets)
    assert np.array_equal(whole.counts, total.counts)


def test_all_elements_equal_to_the_threshold_are_kept() -> None:
    tau = np.array([0.0] * 600 + [0.5, -0.5] * 150 + [0.75] * 100, np.float32)
    histogram = MagnitudeHistogram.of(tau)
    assert histogram.threshold(0.2) == 0.5
    assert histogram.threshold(0.1) == 0.75
    assert histogram.threshold(0.41) == 0.0


def test_ties_at_the_upper_edge_are_not_dropped() -> None:
    tau = np.array([0.25] * 900 + [0.5] * 100, np.float32)
    upper = MagnitudeHistogram.of(tau).upper_edge(10)
    assert upper == 0.5
    assert (np.abs(tau) <= upper).all()


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_the_upper_edge_drops_whole_elements_at_exact_values(n: int) -> None:
    tau = np.arange(128, 228, dtype=np.float32) / 1024  # each in a bucket of its own
    upper = MagnitudeHistogram.of(tau).upper_edge(n)
    assert (tau > upper).sum() == n
    kept = np.float32(upper)
    assert (tau > kept).sum() == n


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), share=shares)
def test_above_the_upper_edge_lies_the_share_asked_for(seed: int, share: float) -> None:
    tau = heavy(seed)
    assert (
        abs(
            (np.abs(tau) > MagnitudeHistogram.of(tau).upper_edge(int(share * tau.size))).mean()
            - share
        )
        < 1e-3
    )


def test_density_counts_exact_zeros() -> None:
    tau = np.zeros(1000, np.float32)
    tau[:100] = np.linspace(1, 2, 100, dtype=np.float32)
    histogram = MagnitudeHistogram.of(tau)
    assert (np.abs(tau) >= histogram.threshold(0.05)).sum() == 50
    assert histogram.n_zero == 900


def test_extreme_densities() -> None:
    histogram = MagnitudeHistogram.of(np.array([0.1, -3.0, 0.0], np.float32))
    assert histogram.threshold(1.0) == 0.0
    assert histogram.threshold(0.0) == float("inf")
    assert histogram.upper_edge(0) == float("inf")
    assert histogram.n == 3


def test_the_smallest_and_largest_floats_have_buckets() -> None:
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    histogram = MagnitudeHistogram.of(np.array([tiny, huge, -huge], np.float32))
    assert histogram.threshold(0.34) == huge
    assert histogram.at(0) == tiny


def test_histograms_add_up_to_the_histogram_of_the_union() -> None:
    one, two = heavy(0), heavy(1, scale=1e-3)
    whole = MagnitudeHistogram.of(np.concatenate([one, two]))
    for total in (
        MagnitudeHistogram.of(one) + MagnitudeHistogram.of(two),
        MagnitudeHistogram.union([MagnitudeHistogram.of(one), MagnitudeHistogram.of(two)]),
        MagnitudeHistogram.of(iter([one, two])),
    ):
        assert np.array_equal(whole.buckets, total.buckets)
        assert np.array_equal(whole.counts, total.counts)


@settings(max_examples=30, deadline=None)
@given(models=model_sets)
def test_norms_are_those_of_the_task_vector(models: ModelSet) -> None:
    histogram = models.statistics.magnitudes(0)
    tau = models.task_vectors[0].astype(np.float64)
    assert histogram.l1 == pytest.approx(np.abs(tau).sum(), rel=5e-3)
    assert histogram.l2 == pytest.approx((tau**2).sum(), rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), low=shares, high=shares)
def test_sums_over_a_band_are_within_a_tenth_of_a_percent_of_the_whole(
    seed: int, low: float, high: float
) -> None:
    tau = heavy(seed)
    magnitude = np.abs(tau.astype(np.float64))
    histogram = MagnitudeHistogram.of(tau)
    first, last = sorted(np.quantile(magnitude, [low, high]))
    band = magnitude[(magnitude >= first) & (magnitude <= last)]
    assert abs(histogram.kept_l1(first, last) - band.sum()) < 1e-3 * magnitude.sum() + last
    assert abs(histogram.kept_l2(first, last) - (band**2).sum()) < 1e-3 * histogram.l2 + 4 * last**2
    assert abs(histogram.kept_count(first, last) - band.size) < 1e-3 * tau.size


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), q=st.floats(0.0, 1.0))
def test_quantiles_lie_between_the_smallest_and_the_largest_magnitude(seed: int, q: float) -> None:
    magnitude = np.abs(heavy(seed, n=2000))
    quantile = MagnitudeHistogram.of(magnitude).quantile(q)
    assert magnitude.min() * 0.99 <= quantile <= magnitude.max() * 1.01
    assert abs((magnitude < quantile).mean() - q) < 2e-3
