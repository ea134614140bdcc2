from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler

from evomerge.samplers import (
    GeneSpace,
    SearchProblem,
    SlopesFirst,
    build_sampler,
    choose,
    resolve_sampler,
)
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
        (30, 16, (True, True, True, True), False, "nsga3", 16),
        (30, 29, (True, True), False, "map", 16),
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


def sloped(n_genes: int, n_sloped: int, n_trials: int) -> SearchProblem:
    space = floats(n_genes)
    names = frozenset([*space.searched][:n_sloped])
    return SearchProblem(space, 2, n_trials, seed=0, sloped=names, sloped_objectives=(True, True))


@pytest.mark.parametrize(
    ("n_sloped", "n_trials", "name", "climbs"),
    [(30, 40, "slopes", 0), (30, 300, "slopes", 0), (29, 40, "slopes", 0), (29, 41, "map", 6)],
)
def test_genes_without_slopes_are_left_to_chains_where_trials_are_few(
    n_sloped, n_trials, name, climbs
):
    problem = sloped(30, n_sloped, n_trials)
    choice = choose(problem)
    assert (choice.name, choice.climbs) == (name, climbs)
    assert resolve_sampler("auto", {}, problem) == (name, {})


@pytest.mark.parametrize(("options", "n_short"), [({}, 8), ({"short": 2}, 2), ({"short": 0}, 0)])
def test_the_first_climbs_are_short_and_take_a_quarter_of_the_items(options, n_short):
    problem = sloped(12, 12, 300)
    climbs = climbs_of(build_sampler("slopes", options, problem), problem)
    assert [climb["items"] for climb in climbs] == [12] * n_short + [48] * (22 - n_short)
    assert {climb["steps"] for climb in climbs} == {4}


def test_climbs_before_another_sampler_are_all_short():
    problem = sloped(12, 11, 300)
    climbs = climbs_of(SlopesFirst(build_sampler("map", {}, problem), 22, problem), problem)
    assert {climb["items"] for climb in climbs} == {12}


def climbs_of(sampler: BaseSampler, problem: SearchProblem) -> list[dict[str, Any]]:
    """Run 22 trials whose climbs change nothing."""
    study = new_study(sampler, 2)
    for _ in range(22):
        trial = study.ask()
        params = suggest_all(problem.space)(trial)
        trial.set_user_attr("climbed", {"params": params})
        study.tell(trial, [params["g0"], 1 - params["g0"]])
    return [trial.user_attrs[CLIMB] for trial in study.trials]
