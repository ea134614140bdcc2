from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.statistics.rows import RowMagnitudes, centred_ties
from evomerge.statistics.tally import EXACT
from evomerge.statistics.tensor import TensorStatistics
from tests.statistics.sets import ModelSet, model_set, model_sets


@settings(max_examples=40, deadline=None)
@given(models=model_sets, knots=st.integers(2, 80))
def test_row_knots_are_the_quantiles_of_each_row(models: ModelSet, knots: int) -> None:
    statistics = models.statistics
    for i, tau in enumerate(models.task_vectors):
        rows = np.abs(tau.reshape(statistics.rows, statistics.columns)).astype(np.float64)
        expected = np.quantile(rows, np.linspace(0, 1, knots), axis=1).T
        found = statistics.row_knots(i, knots)
        assert found.dtype == np.float32
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-30)
        assert (np.diff(found, axis=1) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), density=st.floats(0.0, 1.0), columns=st.integers(1, 1600))
def test_edges_of_small_tensors_and_short_rows_are_those_of_a_sort(
    seed: int, density: float, columns: int
) -> None:
    rows = 40 if columns > 120 else EXACT // columns + 1
    tile = np.random.default_rng(seed).standard_normal((rows, columns), np.float32)
    found = RowMagnitudes.of([tile], rows, columns)
    kept = int(density * columns)
    assert ((np.abs(tile) >= found.lower_edge(kept)[:, None]).sum(axis=1) == kept).all()
    assert ((np.abs(tile) > found.upper_edge(kept)[:, None]).sum(axis=1) == kept).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), density=st.floats(0.0005, 1.0), columns=st.integers(2000, 5000))
def test_edges_of_long_rows_keep_nearly_the_density(
    seed: int, density: float, columns: int
) -> None:
    # Of float32: elements that share a rounded value cannot be parted by any threshold.
    tile = np.random.default_rng(seed).standard_normal((40, columns), np.float32)
    wanted = int(density * columns)
    edge = RowMagnitudes.of([tile], 40, columns).lower_edge(wanted)
    kept = (np.abs(tile) >= edge[:, None]).sum(axis=1)
    # Between two of the 64 ranks of the bulk, chance decides; over the rows it evens out.
    assert (np.abs(kept - wanted) <= 2.0 + columns / 64).all()
    assert abs(kept.mean() - wanted) <= 1.0 + 1e-3 * columns


def test_row_edges_in_the_tail_keep_nearly_the_share_asked_for() -> None:
    models = model_set(5, shape=(50, 20_000), k=1)
    found = models.statistics.row_magnitudes(0)
    for density in (0.001, 0.01, 0.05):
        edge = found.lower_edge(int(density * 20_000))
        kept = (np.abs(models.task_vectors[0]) >= edge[:, None]).mean()
        assert kept == pytest.approx(density, rel=0.05)


@pytest.mark.parametrize("shape", [(3, 10), (50, 2000)])
def test_extreme_row_edges(shape: tuple[int, int]) -> None:
    found = model_set(0, shape=shape).statistics.row_magnitudes(0)
    assert (found.lower_edge(shape[1]) == 0).all()
    assert np.isposinf(found.lower_edge(0)).all()
    assert np.isposinf(found.upper_edge(0)).all()
    assert (found.upper_edge(shape[1]) == 0).all()


@settings(max_examples=40, deadline=None)
@given(models=model_sets)
def test_row_divergence_is_that_of_softmaxed_rows(models: ModelSet) -> None:
    statistics = models.statistics
    wide = torch.from_numpy(models.models).double().reshape(-1, statistics.rows, statistics.columns)
    base = wide[0] if models.base is not None else torch.zeros_like(wide[0])
    for i in range(len(models.experts)):
        expert = wide[i + (models.base is not None)]
        log_p, log_q = expert.log_softmax(1), base.log_softmax(1)
        expected = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none")
        assert np.allclose(
            statistics.row_divergence(i), expected.sum(1).numpy(), rtol=1e-6, atol=1e-13
        )


def test_importance_quantiles_are_those_of_change_times_divergence() -> None:
    models = model_set(2, shape=(200, 300), k=2, scale=0.3)
    statistics = models.statistics
    quantiles = (0.01, 0.25, 0.5, 0.75, 0.99)
    for i, tau in enumerate(models.task_vectors):
        importance = np.abs(tau) * statistics.row_divergence(i)[:, None]
        found = statistics.importance_quantiles(i, quantiles)
        shares = [(importance < value).mean() for value in found]
        assert shares == pytest.approx(quantiles, abs=1e-3)


def test_a_vector_is_one_row_and_leading_dimensions_are_rows() -> None:
    def sizes(*shape: int) -> tuple[int, int]:
        statistics = TensorStatistics(None, [torch.zeros(shape)])
        return statistics.rows, statistics.columns

    assert sizes(7) == (1, 7)
    assert sizes() == (1, 1)
    assert sizes(2, 3, 5) == (6, 5)


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=12).map(sorted),
    st.sampled_from([1e-20, 1.0, 1e20]),
)
def test_equal_knots_are_parted_around_the_middle_of_their_ranks(
    values: list[int], scale: float
) -> None:
    knots = (np.array([values]) * scale).astype(np.float32)
    (parted,) = centred_ties(knots)
    assert (np.diff(parted) >= 0).all()
    assert np.allclose(parted, knots[0], rtol=1e-6, atol=1e-29)
    for value in set(knots[0]):
        ranks = np.flatnonzero(knots[0] == value)
        assert np.interp(value, parted, np.arange(len(parted))) == pytest.approx(
            ranks.mean(), abs=0.26
        )
