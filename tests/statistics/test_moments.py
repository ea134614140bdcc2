from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from evomerge.statistics.moments import Moments
from tests.statistics.sets import ModelSet, model_sets


@settings(max_examples=40, deadline=None)
@given(models=model_sets)
def test_moments_of_task_vectors_and_models_equal_brute_force(models: ModelSet) -> None:
    statistics = models.statistics
    pairs = [(statistics.moments(i), tau) for i, tau in enumerate(models.task_vectors)]
    pairs += [(statistics.model_moments(i), theta) for i, theta in enumerate(models.models)]
    for moments, array in pairs:
        wide = array.astype(np.float64)
        assert moments.n == array.size
        assert moments.sum == pytest.approx(wide.sum(), rel=1e-9, abs=1e-12)
        assert moments.abs_sum == pytest.approx(np.abs(wide).sum(), rel=1e-9)
        assert moments.square_sum == pytest.approx((wide**2).sum(), rel=1e-9)
        assert (moments.max, moments.min) == (array.max(), array.min())
        assert moments.mean == pytest.approx(wide.mean(), rel=1e-9, abs=1e-12)
        assert moments.variance == pytest.approx(wide.var(), rel=1e-6, abs=1e-12)


def test_the_moments_of_nothing_are_zero() -> None:
    moments = Moments.of(np.zeros(0, np.float32))
    assert (moments.n, moments.mean, moments.variance) == (0, 0, 0)
