from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.samplers import GeneSpace, choose
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
    chosen, reason = choose(space, n_objectives=n_objectives, n_trials=n_trials)
    assert chosen == name
    assert reason
