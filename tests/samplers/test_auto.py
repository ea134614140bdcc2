from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.samplers import GeneSpace, SearchProblem, choose
from tests.samplers.searches import MIXED, floats

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
