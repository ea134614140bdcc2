from __future__ import annotations

import pytest

from evomerge.config.experiment import ObjectiveConfig
from evomerge.errors import ConfigError
from evomerge.schema import parse


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"task": "a", "metric": "acc"}, ("a", "acc", "maximize")),
        ({"cost": "hops"}, ("cost", "hops", "minimize")),
        ({"task": "cost", "metric": "hops"}, ("cost", "hops", "minimize")),
        ({"cost": "kl", "reference": "math"}, ("cost", "kl:math", "minimize")),
        ({"cost": "distance", "direction": "maximize"}, ("cost", "distance", "maximize")),
    ],
)
def test_objectives_may_be_costs_which_are_minimised(
    written: dict[str, str], meant: tuple[str, str, str]
) -> None:
    objective = parse(ObjectiveConfig, written)
    assert (objective.task, objective.metric, objective.direction) == meant
    assert parse(ObjectiveConfig, objective.model_dump()) == objective


def test_an_objective_is_a_task_or_a_cost() -> None:
    with pytest.raises(ConfigError, match="expected a task and a metric, or a cost, got both"):
        parse(ObjectiveConfig, {"cost": "hops", "task": "a", "metric": "acc"})


def test_a_wrong_cost_is_one_fault() -> None:
    with pytest.raises(ConfigError) as error:
        parse(ObjectiveConfig, {"cost": None})
    assert str(error.value) == "metric: expected text, got None"
