from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from evomerge.statistics.tensor import TensorStatistics
from tests.statistics.sets import ModelSet, model_set, model_sets


@settings(max_examples=30, deadline=None)
@given(models=model_sets.filter(lambda m: m.base is not None and m.base.ndim > 1))
def test_column_scores_equal_brute_force(models: ModelSet) -> None:
    statistics = models.statistics
    wide = models.models.reshape(-1, statistics.rows, statistics.columns).astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    cosines = (wide[1:] * wide[0]).sum(axis=1) / (norms[1:] * norms[0])
    magnitude, direction = statistics.column_scores()
    assert np.allclose(magnitude, np.abs(norms[1:] - norms[0]), atol=1e-9)
    assert np.allclose(direction, 1 - cosines, atol=1e-9)


def test_an_unchanged_or_empty_column_has_not_moved() -> None:
    base = model_set(0, shape=(6, 3)).experts[0]
    base[:, 1] = 0.0
    assert np.allclose(TensorStatistics(base, [base]).column_scores(), 0.0, atol=1e-12)


def test_row_scores_are_column_scores_of_the_transposed_matrix() -> None:
    models = model_set(0, shape=(300, 1000), k=2)  # rows in more than one tile
    turned = TensorStatistics(models.base.T, [expert.T for expert in models.experts])
    assert np.allclose(models.statistics.row_scores(), turned.column_scores(), rtol=1e-12)


def test_elements_of_a_vector_are_scored_by_their_change() -> None:
    models = model_set(0, shape=(50,), k=2)
    assert np.array_equal(models.statistics.column_scores(), np.abs(models.task_vectors)[None])
