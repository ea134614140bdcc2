"""Races drop what will not enter the front, at the stated error rate, and nothing else."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluation import PreparedSuites
from evomerge.evaluation.item_response import fit_item_response
from evomerge.evaluation.racing import (
    Contest,
    Race,
    RaceRules,
    predicted_mean,
)
from evomerge.evaluation.scores import ItemScore

N_ITEMS = 200
RUNG = 60


def contest(name: str, front: list[float], sign: int = 1) -> Contest:
    return Contest(
        name,
        "acc",
        sign,
        front=sign * np.array(front),
        worst=min(0.0, float(sign)),
        items=np.arange(N_ITEMS),
        easiness=np.full(N_ITEMS, 0.5),
        spread=0.5,
    )


def scores(name: str, values: np.ndarray) -> list[ItemScore]:
    return [ItemScore(name, i, "acc", float(value)) for i, value in enumerate(values)]


def solved(share: float) -> np.ndarray:
    """The first items of a task, a share of them solved."""
    return (np.arange(RUNG) < share * RUNG).astype(float)


def race(*contests: Contest, **rules: float) -> Race:
    return Race(RaceRules(**{"tolerance": 0.0, **rules}), contests, seed=0)


def test_a_trial_far_behind_everywhere_is_dropped_with_its_estimates():
    drop = race(contest("a", [0.8]), contest("b", [0.7])).drop(
        [*scores("a", solved(0.3)), *scores("b", solved(0.2))]
    )
    assert drop is not None
    assert "probability 0.000 after 120 items" in drop.reason
    assert [e.value for e in drop.estimates] == pytest.approx([0.3, 0.2])
    assert [e.n for e in drop.estimates] == [RUNG, RUNG]
    assert all(0.03 < e.stderr < 0.08 for e in drop.estimates)


def test_a_trial_ahead_in_one_objective_goes_on():
    both = race(contest("a", [0.8]), contest("b", [0.7]))
    assert both.drop([*scores("a", solved(0.1)), *scores("b", solved(0.75))]) is None


def test_a_gap_between_members_of_the_front_can_be_entered():
    wide = race(contest("a", [0.9, 0.1]), contest("b", [0.1, 0.9]))
    middle = [*scores("a", solved(0.5)), *scores("b", solved(0.5))]
    assert wide.drop(middle) is None
    closed = race(contest("a", [0.9, 0.8, 0.1]), contest("b", [0.1, 0.8, 0.9]))
    assert closed.drop(middle) is not None


def test_less_is_better_where_the_direction_says_so():
    few = scores("a", solved(0.2))
    assert race(contest("a", [0.8])).drop(few) is not None
    assert race(contest("a", [0.8], sign=-1)).drop(few) is None


@pytest.mark.parametrize("estimates", [False, True])
def test_fewer_items_than_the_rule_says_decide_nothing(estimates):
    """Of any objective, however sure the predictions are."""
    table = (np.random.default_rng(0).random((40, N_ITEMS)) < 0.9) * 1.0
    model = fit_item_response([table, table]) if estimates else None
    both = race(contest("a", [0.9]), contest("b", [0.9]), estimates=estimates)
    both = dataclasses.replace(both, responses=model)
    (fewest,) = map(int, re.findall(r"at least (\d+) of each objective", both.rules.summary))

    def dropped(n_of_a: int, n_of_b: int) -> bool:
        seen = [*scores("a", np.zeros(n_of_a)), *scores("b", np.zeros(n_of_b))]
        return both.drop(seen) is not None

    assert dropped(fewest, fewest)
    assert not dropped(fewest - 1, N_ITEMS)
    assert not dropped(N_ITEMS, 1)


def test_a_tolerance_drops_trials_that_gain_little_hypervolume():
    level = scores("a", solved(0.55))
    assert race(contest("a", [0.52])).drop(level) is None
    assert race(contest("a", [0.52]), tolerance=0.5).drop(level) is not None


def test_estimates_are_surer_than_what_the_front_alone_tells():
    """Most items are solved by every trial: a model of the run knows, after ten of the others."""
    generator = np.random.default_rng(0)
    skills = generator.random((40, 1))
    table = (skills > np.where(np.arange(N_ITEMS) % 4 == 0, generator.random(N_ITEMS), -1)) * 1.0
    bar = dataclasses.replace(contest("a", [0.97]), easiness=table[-10:].mean(axis=0))
    seen = [ItemScore("a", i, "acc", float(i % 4 != 0 or i % 8 == 0)) for i in range(40)]
    drop = dataclasses.replace(race(bar), responses=fit_item_response([table])).drop(seen)
    assert drop is not None
    assert drop.estimates[0].value == pytest.approx(0.88, abs=0.05)
    assert drop.estimates[0].n == 40
    assert 0 < drop.estimates[0].stderr < 0.9 * bar.predict(seen).stderr


@given(st.integers(1, 99), st.integers(0, 9))
def test_all_items_predict_their_own_mean_exactly(n_solved, seed):
    values = np.random.default_rng(seed).permutation(np.arange(100) < n_solved).astype(float)
    easiness = np.random.default_rng(seed + 1).random(100)
    value, stderr = predicted_mean(values, np.arange(100), easiness, 0.4)
    assert value == pytest.approx(n_solved / 100)
    assert stderr == 0


def test_hard_items_first_do_not_look_like_a_bad_trial():
    easiness = np.linspace(0, 1, 100)
    value, _ = predicted_mean(easiness[:40], np.arange(40), easiness, 0.3)
    assert float(np.mean(easiness[:40])) < 0.2
    assert value == pytest.approx(0.5, abs=0.08)


def test_dropped_trials_would_enter_the_front_no_more_often_than_stated():
    """Trials of a spread of skills, on items of a spread of difficulty, against one good model."""
    generator = np.random.default_rng(0)
    easiness = generator.beta(2, 2, N_ITEMS)
    dropped = wrong = 0
    for _ in range(600):
        skill = generator.normal(-0.05, 0.15)
        full = (generator.random(N_ITEMS) < np.clip(easiness + skill, 0, 1)).astype(float)
        rung = generator.permutation(N_ITEMS)[:RUNG]
        bar = Contest("a", "acc", 1, np.array([0.5]), 0.0, np.arange(N_ITEMS), easiness, 0.5)
        seen = [ItemScore("a", int(i), "acc", full[i]) for i in rung]
        if race(bar, error_rate=0.1).drop(seen) is not None:
            dropped += 1
            wrong += full.mean() > 0.5
    assert dropped > 150
    assert 0 < wrong / dropped <= 0.1


@pytest.mark.parametrize("rungs", [(0.25, 0.5), (0.01, 0.99)])
def test_rungs_are_nested_and_change_no_score(rungs, suite, model, tokenizer):
    suite = dataclasses.replace(suite, smooth=frozenset({"tiny_generate", "tiny_choice"}))
    whole = PreparedSuites.of([suite], "search", model, tokenizer).score()
    prepared = PreparedSuites.of([suite], "search", model, tokenizer, rungs=rungs)
    *partial, final = prepared.looks()
    assert [(i.task, i.item, i.metric) for i in final.items] == [
        (i.task, i.item, i.metric) for i in whole.items
    ]
    assert [i.score for i in final.items] == pytest.approx([i.score for i in whole.items], rel=1e-5)
    for task, table in whole.metrics.items():
        for metric, value in table.items():
            assert final.metrics[task][metric].value == pytest.approx(value.value, rel=1e-5)
    known: set[tuple[str, int, str]] = set()
    for look in partial:
        found = {(i.task, i.item, i.metric) for i in look.items}
        assert known <= found
        assert not look.metrics
        known = found
    assert [look.items for look in prepared.looks_at(final)] == [
        *(look.items for look in partial),
        final.items,
    ]


@pytest.mark.parametrize("rungs", [(), (0.5, 0.25), (0.5, 0.5)])
def test_rungs_must_ascend(rungs):
    from pydantic import TypeAdapter, ValidationError

    with pytest.raises(ValidationError):
        TypeAdapter(RaceRules).validate_python({"rungs": rungs})
