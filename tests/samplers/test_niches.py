from __future__ import annotations

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.samplers import GeneSpace, SearchProblem, build_sampler
from evomerge.samplers.niches import _joined as joined
from evomerge.samplers.niches import competition
from tests.samplers.searches import floats, new_study, params_of, suggest_all
from tests.samplers.test_pycma import minimise, sphere

SPACE = floats(6)


def test_what_only_one_can_do_is_worth_most():
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert competition(scores, 1.0).sum(axis=1).tolist() == [1.0, 1.0, 1.0]
    assert competition(scores, 0.0).sum(axis=1).tolist() == [2.0, 2.0, 1.0]


def test_items_that_nobody_solves_give_nothing():
    assert competition(np.zeros((2, 3)), 1.0).tolist() == [[0, 0, 0], [0, 0, 0]]


def run(item_scores, n_trials=30, space=SPACE):
    sampler = build_sampler(
        "m2n2",
        {"archive_size": 6},
        SearchProblem(
            space=space, n_objectives=1, n_trials=n_trials, seed=1, item_scores=item_scores
        ),
    )
    study = new_study(sampler, 1)
    for _ in range(n_trials):
        trial = study.ask()
        study.tell(trial, sphere(suggest_all(space)(trial)))
    return params_of(study)


def test_item_scores_decide_who_breeds_and_objectives_where_there_are_none():
    items = np.random.default_rng(0).integers(0, 2, (30, 50)).astype(float)
    items[:, 0] = np.nan  # never scored
    assert run(lambda trial: (items[trial],)) == run(lambda trial: (items[trial],))
    assert run(lambda trial: (items[trial],)) != run(None)
    assert run(lambda trial: None) == run(None)


def test_the_space_says_how_deep_genes_are_and_their_names_do_not():
    def values(names, depths=()):
        genes = GeneSpace(
            dict.fromkeys(names, FloatDistribution(0.0, 1.0)),
            dict.fromkeys(names, 0.5),
            dict(zip(names, depths, strict=False)),
        )
        return [list(params.values()) for params in run(None, space=genes)]

    plain, numbered = list("abcdef"), [f"coefficient.{i}" for i in range(6)]
    assert values(plain) == values(numbered)
    assert values(plain, range(6)) == values(numbered, range(6))
    assert values(plain, range(6)) != values(plain)


def spend(alpha=1.0):
    """Two objectives: noise on 40 items, and a cost that falls to 0 with the first gene."""
    items = np.random.default_rng(0).integers(0, 2, (150, 40)).astype(float)
    sampler = build_sampler(
        "m2n2",
        {"archive_size": 6, "alpha": alpha},
        SearchProblem(
            space=SPACE,
            n_objectives=2,
            n_trials=150,
            seed=1,
            item_scores=lambda trial: (items[trial], np.array([])),
        ),
    )
    study = new_study(sampler, 2)
    for _ in range(150):
        trial = study.ask()
        params = suggest_all(SPACE)(trial)
        study.tell(trial, [-items[trial.number].mean(), next(iter(params.values()))])
    costs = [trial.values[1] for trial in study.trials]
    return np.mean(costs[:6]), np.mean(costs[-30:])


def test_a_cost_without_items_decides_who_breeds_too():
    drawn, bred = spend()
    assert bred < drawn / 2


def test_a_cost_gives_as_much_as_the_items_of_an_objective():
    items = [np.ones((3, 4)), np.empty((3, 0)), np.ones((3, 2))]
    columns, capacity = joined(items, np.arange(9.0).reshape(3, 3))
    assert columns.shape == (3, 7)
    assert columns[:, 4].tolist() == [1.0, 4.0, 7.0]
    assert capacity.tolist() == [1, 1, 1, 1, 3, 1, 1]


def test_m2n2_finds_more_than_chance():
    def best(name):
        runs = (minimise(name, SPACE, sphere, seed=s, n_trials=120) for s in range(3))
        return sum(run.best_value for run in runs)

    assert best("m2n2") < best("random") / 1.5
