from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.errors import SpaceError
from evomerge.samplers import GeneSpace
from tests.samplers.searches import MIXED

UNIT = FloatDistribution(0, 1)


@pytest.mark.parametrize(
    ("distributions", "defaults", "message"),
    [
        ({"a": UNIT}, {}, "one default per gene; they differ in a"),
        ({"a": UNIT}, {"a": 2.0}, "the default of a in .* got 2.0"),
        ({"a": CategoricalDistribution(["x"])}, {"a": "y"}, "the default of a in .* got 'y'"),
    ],
)
def test_defaults_must_fit_the_genes(distributions, defaults, message):
    with pytest.raises(SpaceError, match=message):
        GeneSpace(distributions, defaults)


def test_searched_leaves_out_genes_with_one_value():
    assert list(MIXED.searched) == ["method", "math", "code", "density", "groups"]


@pytest.mark.parametrize(
    ("params", "held"),
    [
        ({"math": 0.2}, True),
        ({"math": 0.2, "method": "ties"}, True),
        ({}, False),
        ({"math": 1.2}, False),
        ({"method": "slerp"}, False),
        ({"math": 0.2, "temperature": 1.0}, False),
    ],
)
def test_holds_only_params_made_of_genes_in_range(params, held):
    assert MIXED.holds(params) is held


def test_complete_adds_defaults_in_the_order_of_the_genes():
    completed = MIXED.complete({"math": 0.2, "method": "ties"})
    assert list(completed) == list(MIXED.distributions)
    assert (completed["math"], completed["method"], completed["density"]) == (0.2, "ties", 1.0)
