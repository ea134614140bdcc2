from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.space.importance import equal_groups, layer_importance


def importance(*task_vectors: list[float]) -> float:
    vectors = np.array(task_vectors)
    return layer_importance(vectors @ vectors.T)


def test_importance_grows_with_distance_and_disagreement() -> None:
    assert importance([0.0, 0.0], [0.0, 0.0]) == 2 * 0.0
    assert importance([3.0, 4.0]) == pytest.approx(5.0)
    assert importance([1.0, 0.0], [1.0, 0.0]) == pytest.approx(1.0)
    assert importance([1.0, 0.0], [0.0, 1.0]) == pytest.approx(2.0)
    assert importance([1.0, 0.0], [-1.0, 0.0]) == pytest.approx(3.0)
    assert importance([2.0, 0.0], [-2.0, 0.0]) == pytest.approx(6.0)


def test_equal_layers_are_cut_into_equal_groups() -> None:
    assert equal_groups([1.0] * 6, 3) == [0, 2, 4]
    assert equal_groups([1.0] * 6, 1) == [0]
    assert equal_groups([1.0] * 3, 3) == [0, 1, 2]


def test_a_layer_that_outweighs_the_others_stands_alone() -> None:
    assert equal_groups([1.0, 1.0, 1.0, 10.0, 1.0, 1.0], 3) == [0, 3, 4]


@given(
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=7), st.integers(min_value=1, max_value=4)
)
def test_no_other_cut_is_more_even(importances: list[float], n_groups: int) -> None:
    n_groups = min(n_groups, len(importances))
    found = equal_groups(importances, n_groups)

    def unevenness(starts: tuple[int, ...]) -> float:
        ends = (*starts[1:], len(importances))
        return sum(sum(importances[a:b]) ** 2 for a, b in zip(starts, ends, strict=True))

    others = combinations(range(1, len(importances)), n_groups - 1)
    assert found[0] == 0
    assert len(found) == n_groups
    assert unevenness(tuple(found)) <= min(unevenness((0, *o)) for o in others) + 1e-9
