from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings

from evomerge.statistics.tensor import TensorStatistics
from tests.statistics.sets import ModelSet, model_set, model_sets


def test_task_vectors_are_taken_from_the_base_in_float32() -> None:
    base = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    expert = torch.tensor([1.5, 2.0], dtype=torch.bfloat16)
    statistics = TensorStatistics(base, [expert])
    assert statistics.magnitudes(0).threshold(0.5) == 0.5
    assert statistics.model_gram[0, 1] == 1.5 + 4.0
    assert statistics.task_gram[0, 0] == 0.25


@settings(max_examples=40, deadline=None)
@given(models=model_sets)
def test_grams_of_tensors_and_of_rows_equal_brute_force(models: ModelSet) -> None:
    statistics = models.statistics
    for vectors, gram, row_gram in (
        (models.models, statistics.model_gram, statistics.row_gram),
        (models.task_vectors, statistics.task_gram, statistics.row_task_gram),
    ):
        rows = vectors.reshape(len(vectors), statistics.rows, statistics.columns)
        expected = np.einsum("irc,jrc->rij", rows, rows, dtype=np.float64)
        assert np.allclose(row_gram, expected, rtol=1e-9, atol=1e-300)
        assert np.allclose(gram, expected.sum(axis=0), rtol=1e-9, atol=1e-300)


def test_sums_over_many_tiles_do_not_lose_digits() -> None:
    n = 3_000_000
    base = torch.full((n,), 1.0)
    gram = TensorStatistics(base, [base + 2.0**-20]).model_gram
    assert gram[0, 0] == n
    assert gram[1, 1] == n * (1 + 2.0**-20) ** 2


def test_grams_of_columns_are_those_of_the_rows_of_the_transposed_matrix() -> None:
    models = model_set(0, shape=(300, 1000), k=2)  # rows in more than one tile
    turned = TensorStatistics(models.base.T, [expert.T for expert in models.experts])
    assert np.allclose(models.statistics.column_task_gram, turned.row_task_gram, rtol=1e-9)
