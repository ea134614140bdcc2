from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.statistics.scores import competition_scores
from tests.statistics.sets import ModelSet, model_set, model_sets


@settings(max_examples=30, deadline=None)
@given(models=model_sets)
def test_scores_equal_the_formula(models: ModelSet) -> None:
    k = len(models.experts)
    tau = models.task_vectors.reshape(k, -1)
    wide = tau.astype(np.float64)
    low, high = np.quantile(np.abs(wide), [0.1, 0.9], axis=1)
    span = np.where(high > low, high - low, 1.0)[:, None]
    u = np.where(
        (high > low)[:, None],
        (np.clip(np.abs(wide), low[:, None], high[:, None]) - low[:, None]) / span,
        0.0,
    )
    expected = np.exp(k * u**2) * np.tanh(wide * wide.sum(axis=0))
    found = competition_scores(tau, list(low), list(high))
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max() + 1e-30)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    ratio=st.floats(0.01, 0.99),
    clip=st.sampled_from([0.0, 1e-4, 0.01]),
)
def test_clips_and_cuts_equal_a_sort(seed: int, ratio: float, clip: float) -> None:
    models = model_set(seed, shape=(30_000,), scale=0.3)
    statistics = models.statistics.scores(clip)
    tau = models.task_vectors
    for i in range(3):
        magnitude = np.abs(tau[i])
        assert abs((magnitude < statistics.low[i]).mean() - clip) < 1e-3
        assert abs((magnitude > statistics.high[i]).mean() - clip) < 1e-3
    scores = competition_scores(tau, statistics.low, statistics.high)
    assert statistics.top == pytest.approx(scores.max(axis=1))
    for score, cut in zip(scores, statistics.cut(ratio), strict=True):
        assert abs((score >= cut).mean() - ratio) < 2e-3  # cuts below zero, too


def test_every_cut_lies_between_the_smallest_and_the_largest_score() -> None:
    models = model_set(3, shape=(50,))
    statistics = models.statistics.scores(0.01)
    scores = competition_scores(models.task_vectors, statistics.low, statistics.high)
    for ratio in (0.0, 1e-6, 0.5, 1.0):
        for score, cut in zip(scores, statistics.cut(ratio), strict=True):
            assert score.min() - 1e-2 * abs(score.min()) <= cut <= score.max()


def test_experts_that_change_nothing_have_scores_of_zero() -> None:
    models = model_set(0, shape=(100,), k=2, scale=0.0)
    statistics = models.statistics.scores(0.01)
    assert statistics.top == (0.0, 0.0)
    assert statistics.cut(0.1) == (0.0, 0.0)
