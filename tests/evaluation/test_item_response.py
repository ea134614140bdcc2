"""Item-response models complete scores, say how sure they are, and never make up what was seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.evaluation.item_response import fit_item_response

N_ITEMS = 150


def simulated(n_trials: int, seed: int, correlation: float = 0.0) -> list[np.ndarray]:
    """Two tasks solved by candidates of two skills; a third of the items is always solved."""
    generator = np.random.default_rng(seed)
    cov = [[1.0, correlation], [correlation, 1.0]]
    skills = generator.multivariate_normal([0, 0], cov, n_trials)
    tables = []
    for i in range(2):
        offsets = np.where(np.arange(N_ITEMS) % 3 == 0, 9.0, generator.normal(0, 1.5, N_ITEMS))
        slopes = generator.uniform(0.5, 2.5, N_ITEMS)
        p = 1 / (1 + np.exp(-(skills[:, i : i + 1] * slopes + offsets)))
        tables.append((generator.random(p.shape) < p).astype(float))
    return tables


def part(seed: int, n: int = 15) -> np.ndarray:
    return np.isin(np.arange(N_ITEMS), np.random.default_rng(seed).permutation(N_ITEMS)[:n])


@pytest.mark.parametrize("n_seen", [15, 60])
def test_estimates_are_sharper_than_means_and_miss_by_what_they_say(n_seen: int) -> None:
    squares, raw, own = [], [], []
    for seed in range(8):
        tables = simulated(60, seed)
        model = fit_item_response([table[:40] for table in tables])
        for trial in range(40, 60):
            seen = [part(100 * seed + trial, n_seen)] * 2
            rows = [table[trial] for table in tables]
            means, covariance = model.complete(rows, seen)
            errors = means - [row.mean() for row in rows]
            own += list(errors)
            squares += list(errors**2 / np.diag(covariance))
            raw += [row[s].mean() - row.mean() for row, s in zip(rows, seen, strict=True)]
    assert np.std(own) < 0.75 * np.std(raw)
    assert np.sqrt(np.mean(squares)) == pytest.approx(1.0, abs=0.2)
    assert np.mean(np.array(squares) > 4) < 0.1


def test_one_task_tells_of_another_whose_skill_goes_with_it() -> None:
    tables = simulated(200, 0, correlation=0.95)
    model = fit_item_response([table[:150] for table in tables])
    seen = [np.ones(N_ITEMS, dtype=bool), np.zeros(N_ITEMS, dtype=bool)]
    rows = [[table[trial] for table in tables] for trial in range(150, 200)]
    guesses = [model.complete(row, seen)[0][1] for row in rows]
    truth = [row[1].mean() for row in rows]
    assert np.corrcoef(guesses, truth)[0, 1] > 0.8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([(0.0, 1.0), (-3.0, 5.0), (2.0, 1.0)]))
def test_scores_of_all_items_are_their_own_mean(seed: int, scale: tuple[float, float]) -> None:
    shift, width = scale
    tables = [shift + width * table for table in simulated(12, seed)]
    model = fit_item_response(tables)
    rows, every = [table[-1] for table in tables], [np.ones(N_ITEMS, dtype=bool)] * 2
    means, covariance = model.complete(rows, every)
    assert means == pytest.approx([row.mean() for row in rows])
    assert covariance == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def test_doubt_shrinks_as_items_come_in_and_never_vanishes_before() -> None:
    tables = simulated(40, 1)
    model = fit_item_response(tables)
    rows = [np.ones(N_ITEMS)] * 2  # better than any trial so far
    doubts = [
        np.diag(model.complete(rows, [part(0, n)] * 2)[1]) for n in (0, 5, 20, 60, 120, N_ITEMS - 1)
    ]
    assert all((more > less).all() for more, less in pairwise(doubts))
    assert (doubts[-1] > 0).all()


def test_what_is_not_seen_is_not_read() -> None:
    model = fit_item_response(simulated(20, 2))
    seen = [part(0)] * 2
    rows = [np.ones(N_ITEMS)] * 2
    other = [np.where(s, 1.0, -7.0) for s in seen]
    assert model.complete(rows, seen)[0] == pytest.approx(model.complete(other, seen)[0])


def test_smooth_scores_are_completed_more_surely_than_coins() -> None:
    generator = np.random.default_rng(0)
    skills, easiness = generator.normal(0, 0.1, (40, 1)), generator.uniform(0.3, 0.7, N_ITEMS)
    smooth = [np.clip(easiness + skills + generator.normal(0, 0.05, (40, N_ITEMS)), 0, 1)]
    seen = [part(0)]
    means, covariance = fit_item_response([smooth[0][:30]]).complete([smooth[0][35]], seen)
    assert means[0] == pytest.approx(smooth[0][35].mean(), abs=0.05)
    assert np.sqrt(covariance[0, 0]) < 0.03


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_task_that_every_candidate_answers_alike_can_be_fitted(value: float) -> None:
    varied = simulated(20, 3)[0]
    model = fit_item_response([varied, np.full_like(varied, value)])
    means, covariance = model.complete([varied[0], np.full(N_ITEMS, value)], [part(0)] * 2)
    assert means[1] == pytest.approx(value, abs=0.05)
    assert np.isfinite(covariance).all()
