"""Signs of task vectors, pair by pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.statistics.signs import SignCounts
from tests.statistics.sets import ModelSet, model_sets


@settings(max_examples=40, deadline=None)
@given(models=model_sets, density=st.sampled_from([0.1, 0.5, 1.0]))
def test_counts_equal_brute_force(models: ModelSet, density: float) -> None:
    k = len(models.experts)
    tau = models.task_vectors.reshape(k, -1)
    least = [models.statistics.magnitudes(i).threshold(density) for i in range(k)]
    signs = np.sign(tau) * (np.abs(tau) >= np.array(least, np.float32)[:, None])
    found = models.statistics.signs(density)
    for i in range(k):
        for j in range(k):
            products = signs[i] * signs[j]
            assert found.shared[i, j] == np.count_nonzero(products)
            assert found.opposed[i, j] == np.count_nonzero(products < 0)
    contested = (signs > 0).any(axis=0) & (signs < 0).any(axis=0)
    assert (found.contested, found.touched) == (contested.sum(), (signs != 0).any(axis=0).sum())


def test_tensors_add_up_to_their_union() -> None:
    tau = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
    whole = SignCounts.of([tau], [0.5, 0.1, 0.0])
    parts = [SignCounts.of([part], [0.5, 0.1, 0.0]) for part in (tau[:, :300], tau[:, 300:])]
    total = parts[0] + parts[1]
    assert (total.shared == whole.shared).all()
    assert (total.opposed == whole.opposed).all()
    assert (total.contested, total.touched) == (whole.contested, whole.touched)
