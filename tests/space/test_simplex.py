from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.space.simplex import breaks_of, even_break, shares_of

breaks = st.lists(st.integers(0, 99).map(lambda n: n / 100), min_size=1, max_size=5)


@given(breaks)
def test_shares_sum_to_one_and_give_their_breaks_back(at: list[float]) -> None:
    shares = shares_of(at, len(at) + 1)
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) >= 0.0
    assert breaks_of(shares) == pytest.approx(at, abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_even_breaks_give_equal_shares(n: int) -> None:
    at = [even_break(position, n) for position in range(n - 1)]
    assert shares_of(at, n) == pytest.approx([1 / n] * n)


def test_a_break_of_one_takes_everything() -> None:
    assert shares_of([0.0, 1.0], 4) == (0.0, 1.0, 0.0, 0.0)
    assert breaks_of((0.0, 1.0, 0.0, 0.0)) == (0.0, 1.0)


def test_uniform_breaks_give_uniform_shares() -> None:
    draws = np.random.default_rng(0).random((20000, 2))
    shares = np.array([shares_of(list(at), 3) for at in draws])
    # Uniform over the simplex: every share has mean 1/3 and variance 1/18.
    assert shares.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert shares.var(axis=0) == pytest.approx([1 / 18] * 3, abs=0.005)
