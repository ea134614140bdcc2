"""What sums over task vectors say about experts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.analysis.interference import Comparison, Sums, compare
from evomerge.statistics.signs import SignCounts


def sums(tau: NDArray[np.float64], base: float = 100.0) -> Sums:
    """Add up task vectors (k, n); the largest fifth is found by sorting."""
    narrow = tau.astype(np.float32)
    least = np.quantile(np.abs(narrow), 0.8, axis=1)
    top = (tau**2 * (np.abs(narrow) >= least[:, None])).sum(axis=1)
    zeros = [0.0] * len(tau)
    return Sums(
        base, tau @ tau.T, top, SignCounts.of([narrow], zeros), SignCounts.of([narrow], list(least))
    )


def normal(k: int, n: int = 4000) -> NDArray[np.float64]:
    return np.random.default_rng(0).standard_normal((k, n))


def comparison(*taus: NDArray[np.float64]) -> Comparison:
    names = [chr(ord("a") + i) for i in range(len(taus[0]))]
    return compare(names, [(f"layer {i}", sums(tau)) for i, tau in enumerate(taus)])


def test_equal_experts_are_one_direction() -> None:
    tau = normal(1)
    model = comparison(np.vstack([tau, 2 * tau])).model
    (pair,) = model.pairs
    assert (pair.experts, pair.conflict, pair.top_conflict) == (("a", "b"), 0.0, 0.0)
    assert pair.cosine == pytest.approx(1.0)
    assert model.effective_rank == pytest.approx(1.0)
    assert model.experts[1].norm == pytest.approx(2 * model.experts[0].norm)
    assert model.experts[0].relative_norm == pytest.approx(model.experts[0].norm / 10)


def test_opposed_experts_conflict_everywhere() -> None:
    tau = normal(1)
    model = comparison(np.vstack([tau, -tau])).model
    assert model.pairs[0].conflict == model.contested == model.top_contested == 1.0
    assert model.effective_rank == pytest.approx(1.0)


def test_unrelated_experts_are_orthogonal_and_conflict_by_chance() -> None:
    model = comparison(normal(3)).model
    assert model.effective_rank == pytest.approx(3.0, abs=0.02)
    assert all(pair.conflict == pytest.approx(0.5, abs=0.05) for pair in model.pairs)
    assert model.contested == pytest.approx(0.75, abs=0.03)
    assert model.top_contested == pytest.approx(0.11, abs=0.02)


def test_layers_add_up_to_the_model() -> None:
    one, two = normal(2, 400), np.random.default_rng(1).standard_normal((2, 900))
    found = comparison(one, two)
    norm = float(np.linalg.norm(np.hstack([one, two])[0]))
    assert found.model.experts[0].norm == pytest.approx(norm)
    assert [part.name for part in found.parts] == ["layer 0", "layer 1"]


def test_what_nobody_changed_has_no_direction() -> None:
    model = comparison(np.zeros((2, 10))).model
    assert model.effective_rank == 0.0
    assert model.pairs[0].cosine == 0.0
    assert math.isnan(model.contested)


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        (np.array([[1.0, 0.0], [0.8, 0.6]]), "average them"),
        (np.array([[1.0, 0.0], [-0.6, 0.8]]), "undo one another"),
        (np.array([[1.0, 0.0], [0.0, 1.0]]), "seldom pull apart"),
        (np.eye(8), "often pull apart"),
        (np.array([[1.0, 0.0], [0.0, 5.0]]), "b moved 5.0 times as far"),
    ],
)
def test_the_hint_follows_the_numbers(mix: NDArray[np.float64], expected: str) -> None:
    assert expected in comparison(mix @ normal(mix.shape[1])).hint


def test_a_few_large_changes_make_trimming_cheap() -> None:
    tau = normal(2) * (np.arange(4000) % 10 == 0)
    assert "trimming" in comparison(tau + 1e-3 * normal(2)).hint


def test_a_single_expert_has_no_pairs() -> None:
    found = comparison(normal(1))
    assert found.model.pairs == ()
    assert found.hint == ""
