from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.samplers import GeneSpace, SearchProblem, build_sampler, choose, resolve_sampler
from evomerge.samplers.learned import CLIMB
from tests.samplers.searches import MIXED, floats, new_study, suggest_all

CHOICES = GeneSpace(
    {**floats(10).distributions, "method": CategoricalDistribution(["ties", "sce"])},
    {**floats(10).defaults, "method": "ties"},
)
NOTHING = GeneSpace({"a": FloatDistribution(1, 1)}, {"a": 1.0})


@pytest.mark.parametrize(
    ("space", "n_objectives", "n_trials", "name"),
    [
        (NOTHING, 1, 100, "random"),
        (floats(12), 4, 100, "nsga3"),
        (floats(3), 2, 100, "gp"),
        (MIXED, 1, 150, "gp"),
        (MIXED, 1, 151, "tpe"),
        (floats(10), 3, 300, "tpe"),
        (floats(11), 1, 50, "catcma"),
        (floats(11), 2, 50, "map"),
        (CHOICES, 2, 50, "catcma"),
        (floats(30), 1, 300, "catcma"),
    ],
)
def test_choice_follows_genes_objectives_and_budget(space, n_objectives, n_trials, name):
    choice = choose(SearchProblem(space, n_objectives, n_trials, seed=0))
    assert choice.name == name
    assert choice.reason
    assert not choice.climbs


@pytest.mark.parametrize(
    ("n_genes", "n_sloped", "objectives", "constrained", "name", "climbs"),
    [
        (30, 30, (True, True), False, "slopes", 0),
        (30, 16, (True, True, True, True), False, "nsga3", 6),
        (30, 29, (True, True), False, "map", 6),
        (30, 15, (True, True), False, "map", 0),
        (30, 30, (True, False), False, "map", 0),
        (30, 30, (True, True), True, "map", 0),
        (10, 10, (True, True), False, "gp", 0),
    ],
)
def test_slopes_are_taken_where_they_are(n_genes, n_sloped, objectives, constrained, name, climbs):
    space = floats(n_genes)
    problem = SearchProblem(
        space,
        len(objectives),
        100,
        seed=0,
        constrained=constrained,
        sloped=frozenset([*space.searched][:n_sloped]),
        sloped_objectives=objectives,
    )
    choice = choose(problem)
    assert (choice.name, choice.climbs) == (name, climbs)


def sloped(n_genes: int, n_sloped: int, n_trials: int, *, timed: bool = False) -> SearchProblem:
    space = floats(n_genes)
    names = frozenset([*space.searched][:n_sloped])
    return SearchProblem(
        space, 2, n_trials, seed=0, sloped=names, sloped_objectives=(True, True), timed=timed
    )


@pytest.mark.parametrize(
    ("n_sloped", "n_trials", "timed", "name", "climbs", "options"),
    [
        (30, 40, False, "slopes", 0, {"short": 20}),
        (30, 41, False, "slopes", 0, {}),
        (30, 300, False, "slopes", 0, {}),
        (30, 300, True, "slopes", 0, {"short": 20}),
        (29, 40, False, "slopes", 0, {"short": 20}),
        (29, 41, False, "map", 2, {}),
        (29, 41, True, "map", 2, {}),
    ],
)
def test_first_climbs_are_short_where_a_search_may_be_over_soon(
    n_sloped, n_trials, timed, name, climbs, options
):
    problem = sloped(30, n_sloped, n_trials, timed=timed)
    choice = choose(problem)
    assert (choice.name, choice.climbs, choice.options) == (name, climbs, options)
    assert resolve_sampler("auto", {}, problem) == (name, options)


@pytest.mark.parametrize(("n_trials", "items"), [(40, [12] * 20 + [48] * 2), (41, [48] * 22)])
def test_a_short_climb_takes_a_quarter_of_the_items_and_longer_searches_none(n_trials, items):
    problem = sloped(12, 12, n_trials)
    study = new_study(build_sampler("auto", {}, problem), 2)
    for _ in items:
        trial = study.ask()
        params = suggest_all(problem.space)(trial)
        trial.set_user_attr("climbed", {"params": params})
        study.tell(trial, [params["g0"], 1 - params["g0"]])
    climbs = [trial.user_attrs[CLIMB] for trial in study.trials]
    assert [climb["items"] for climb in climbs] == items
    assert {climb["steps"] for climb in climbs} == {4}


def test_longer_searches_ask_what_slopes_by_its_own_name_asks():
    problem, asked = sloped(12, 12, 60), []
    for name in ("auto", "slopes"):
        study = new_study(build_sampler(name, {}, problem), 2)
        for _ in range(12):
            trial = study.ask()
            params = suggest_all(problem.space)(trial)
            moved = {gene: (value + 0.8) / 2 for gene, value in params.items()}
            trial.set_user_attr("climbed", {"params": moved})
            study.tell(trial, [params["g0"], 1 - params["g1"]])
        asked.append([(trial.params, trial.user_attrs) for trial in study.trials])
    assert asked[0] == asked[1]
