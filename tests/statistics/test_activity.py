from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.statistics.activity import conflict
from tests.statistics.sets import ModelSet, model_set, model_sets


@settings(max_examples=40, deadline=None)
@given(models=model_sets, epsilon=st.sampled_from([0.0, 1e-5, 1e-3, 10.0]))
def test_co_activation_counts_equal_brute_force(models: ModelSet, epsilon: float) -> None:
    k = len(models.experts)
    active = np.abs(models.task_vectors.reshape(k, -1)) > np.float32(epsilon)
    counts = models.statistics.activity(epsilon)
    assert counts.shape == (2**k,)
    for subset in range(2**k):
        wanted = [bool(subset >> i & 1) for i in range(k)]
        assert counts[subset] == (wanted == active.T).all(axis=1).sum()


@settings(max_examples=40, deadline=None)
@given(models=model_sets)
def test_conflict_is_the_sum_over_pairs(models: ModelSet) -> None:
    k = len(models.experts)
    tau = models.task_vectors.reshape(k, -1)
    wide = np.abs(tau.astype(np.float64))
    pairs = [wide[i] * wide[j] for i in range(k) for j in range(k) if i != j]
    expected = np.sum(pairs, axis=0) if pairs else np.zeros(tau.shape[1])
    assert np.allclose(conflict(tau), expected, rtol=1e-5, atol=1e-40)


def test_conflict_is_exactly_zero_where_one_expert_changes_the_element() -> None:
    tau = np.zeros((3, 100), np.float32)
    tau[np.arange(100) % 3, np.arange(100)] = np.linspace(0.1, 1, 100)
    assert (conflict(tau) == 0).all()


def test_the_conflict_histogram_finds_shares() -> None:
    models = model_set(1, shape=(40_000,))
    omega = conflict(models.task_vectors)
    histogram = models.statistics.conflict
    assert abs((omega > histogram.upper_edge(400)).mean() - 0.01) < 1e-3
    assert abs((omega >= histogram.threshold(0.3)).mean() - 0.3) < 1e-3
