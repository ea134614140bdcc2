from __future__ import annotations

import pytest
from optuna.distributions import FloatDistribution

from evomerge.samplers import GeneSpace, choose
from tests.samplers.searches import MIXED, floats

NOTHING = GeneSpace({"a": FloatDistribution(1, 1)}, {"a": 1.0})


@pytest.mark.parametrize(
    ("space", "n_objectives", "n_trials", "name"),
    [
        (NOTHING, 1, 100, "random"),
        (floats(12), 4, 100, "nsga3"),
        (floats(12), 2, 100, "gp"),
        (MIXED, 1, 150, "gp"),
        (MIXED, 1, 151, "catcma"),
        (MIXED, 2, 151, "tpe"),
        (floats(12), 1, 300, "pycma"),
        (floats(12), 2, 300, "tpe"),
        (floats(30), 1, 300, "pycma"),
        (floats(31), 1, 300, "tpe"),
        (floats(21), 2, 50, "tpe"),
    ],
)
def test_choice_follows_genes_objectives_and_budget(space, n_objectives, n_trials, name):
    chosen, reason = choose(space, n_objectives=n_objectives, n_trials=n_trials)
    assert chosen == name
    assert reason
