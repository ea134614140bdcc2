from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from evomerge.statistics.activity import conflict
from evomerge.statistics.collect import STATISTICS, WholeModel, measure
from evomerge.statistics.histogram import MagnitudeHistogram
from evomerge.statistics.scores import ScoreStatistics
from evomerge.statistics.tensor import TensorStatistics
from evomerge.statistics.variance import VarianceHistogram
from tests.statistics.sets import model_set

SHAPES = {"a": (40, 30), "b": (50,), "c": (8, 8)}
MODELS = {name: model_set(i, shape=shape) for i, (name, shape) in enumerate(SHAPES.items())}


def test_what_was_measured_is_not_read_again() -> None:
    readable = True

    def source(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            assert readable, "read again"
            return tensor

        return read

    m = MODELS["a"]
    tensor = TensorStatistics(source(m.base), [source(e) for e in m.experts])
    measure(tensor, [*STATISTICS, "activity 0.1", "scores 0.01"])
    readable = False
    for ask in STATISTICS.values():
        ask(tensor)
    tensor.activity(0.1)
    tensor.scores(0.01)
    with pytest.raises(AssertionError, match="read again"):
        tensor.activity(0.2)


def test_statistics_measured_on_first_use_are_passed_over() -> None:
    measure(MODELS["a"].statistics, ["masked_l1", "activity", "of a plug-in"])


def test_global_scope_counts_over_all_tensors() -> None:
    tensors: dict[str, TensorStatistics] = {}
    model = WholeModel(tensors.values)
    for name, m in MODELS.items():
        tensors[name] = TensorStatistics(m.base, m.experts, model=model)
    for i in range(3):
        flat = np.concatenate([m.task_vectors[i].reshape(-1) for m in MODELS.values()])
        expected = MagnitudeHistogram.of(flat)
        found = tensors["b"].model_magnitudes(i)
        assert np.array_equal(found.buckets, expected.buckets)
        assert np.array_equal(found.counts, expected.counts)
        assert tensors["c"].model_magnitudes(i) is found  # added up once
    flat = np.concatenate([m.task_vectors.reshape(3, -1) for m in MODELS.values()], axis=1)
    assert np.array_equal(
        tensors["a"].model_conflict.counts, MagnitudeHistogram.of(conflict(flat)).counts
    )
    variance = VarianceHistogram.of([flat], 3)
    assert np.array_equal(tensors["a"].model_variance.counts, variance.counts)
    assert np.allclose(tensors["a"].model_variance.bucket_energies, variance.bucket_energies)
    scores = tensors["a"].model_scores(0.01)
    expected = ScoreStatistics.of([flat], scores.low, scores.high)
    assert scores.top == expected.top
    assert np.array_equal(scores.counts, expected.counts)
    assert tensors["b"].model_scores(0.01) is scores
