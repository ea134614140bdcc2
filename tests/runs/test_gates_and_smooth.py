"""Gates and smooth metrics as an experiment writes them."""

from __future__ import annotations

import pytest

from evomerge.config.experiment import Experiment, ObjectiveConfig
from evomerge.evaluation.gates import Gates
from evomerge.evaluation.racing import RaceRules
from evomerge.runs.parts import make_suites
from evomerge.schema import parse

MINIMAL = {
    "models": {"base": "zoo:base", "experts": {"math": "zoo:math"}},
    "search_space": "global_linear",
    "evaluators": ["zoo"],
    "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
}


@pytest.mark.parametrize(
    ("written", "gates"),
    [
        ({}, Gates()),
        ({"gates": True}, Gates()),
        ({"gates": "off"}, None),
        ({"gates": False}, None),
        ({"gates": {"perplexity_factor": 3}}, Gates(perplexity_factor=3.0)),
    ],
)
def test_gates_are_on_unless_switched_off(written, gates):
    experiment = parse(Experiment, {**MINIMAL, **written})
    assert experiment.gates == gates
    again = parse(Experiment, experiment.model_dump(mode="json"))
    assert again == experiment


@pytest.mark.parametrize(
    ("written", "race"),
    [
        ({}, None),
        ({"race": False}, None),
        ({"race": "careful"}, RaceRules()),
        ({"race": "fast"}, RaceRules(error_rate=0.1, tolerance=0.005, estimates=True)),
        ({"race": {"rungs": [0.5]}}, RaceRules(rungs=(0.5,))),
    ],
)
def test_races_are_off_unless_asked_for(written, race):
    experiment = parse(Experiment, {**MINIMAL, **written})
    assert experiment.race == race
    again = parse(Experiment, experiment.model_dump(mode="json"))
    assert again == experiment


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("exact_match", "maximize"),
        ("gold_bpb", "minimize"),
        ("brier", "minimize"),
        ("gold_probability", "maximize"),
    ],
)
def test_a_metric_knows_which_way_is_better(metric, direction):
    assert ObjectiveConfig(task="t", metric=metric).direction == direction
    assert ObjectiveConfig(task="t", metric=metric, direction="maximize").direction == "maximize"


@pytest.mark.parametrize("written", [{"cost": "hops"}, {"task": "cost", "metric": "hops"}])
def test_less_of_a_cost_is_better_unless_the_direction_says_otherwise(written):
    assert parse(ObjectiveConfig, written).direction == "minimize"
    turned = parse(ObjectiveConfig, {**written, "direction": "maximize"})
    assert turned.direction == "maximize"


def test_tasks_of_smooth_constraints_are_scored_smoothly():
    constraint = {"task": "zoo_facts", "metric": "gold_bpb", "at_most": 2.0}
    content = {**MINIMAL, "evaluators": [{"tasks": ["zoo_facts"]}], "constraints": [constraint]}
    (suite,) = make_suites(parse(Experiment, content))
    assert suite.smooth == {"zoo_facts"}
