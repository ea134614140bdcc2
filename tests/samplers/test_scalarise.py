from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evomerge.samplers.results import Result
from evomerge.samplers.scalarise import Scalariser, draw_preference, tchebycheff

VALUE = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(VALUE, VALUE), min_size=2, max_size=8), st.integers(0, 50))
def test_a_dominating_point_never_scores_worse(rows, generation):
    values = np.array(rows)
    losses = tchebycheff(values, values, draw_preference(1, generation, 2))
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if np.all(a <= b):
                assert losses[i] <= losses[j] + 1e-12


def test_objectives_count_on_one_scale():
    values = np.array([[0.0, 1000.0], [1.0, 0.0], [0.4, 400.0]])
    losses = tchebycheff(values, values, np.array([0.5, 0.5]))
    assert losses.argmin() == 2
    assert np.isclose(losses[2], 0.5 * 0.4 + 0.05 * 0.4)


def test_one_objective_stays_as_it_is():
    values = np.array([[3.0], [-1.0]])
    assert tchebycheff(values, values, np.ones(1)).tolist() == [3.0, -1.0]


def test_preferences_differ_by_generation_and_sum_to_one():
    first, again, other = (draw_preference(7, g, 3) for g in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.isclose(first.sum(), 1.0)


def test_a_given_preference_is_a_plain_sum_in_every_generation():
    results = [
        Result(0, {}, {}, losses, 0.0, False, False)
        for losses in ((1.0, 0.0), (0.0, 0.6), None, (0.2, 0.2))
    ]
    for generation in (0, 7):
        losses = Scalariser(1, preference=(1.0, 2.0)).losses(results, generation)
        assert losses is not None
        assert np.allclose([losses[0], losses[1], losses[3]], [1.0, 1.2, 0.6])
        assert losses[2] > 1.2
