from __future__ import annotations

import pytest

from evomerge.config.experiment import EvaluatorConfig, ObjectiveConfig
from evomerge.errors import ConfigError
from evomerge.schema import parse


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"task": "a", "metric": "acc"}, ("a", "acc", "maximize")),
        ({"task": "a", "metric": "acc,none"}, ("a", "acc", "maximize")),  # as lm-eval's results
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


def test_how_a_suite_generates_is_read_and_written_alike() -> None:
    written = {
        "tasks": ["a"],
        "apply_chat_template": True,
        "chat_template_args": {"enable_thinking": False, "level": 2},
        "reasoning": ["<a>", "</a>"],
        "generation_kwargs": {"max_gen_toks": 8, "do_sample": True, "temperature": 0.6},
        "repeats": 4,
    }
    suite = parse(EvaluatorConfig, written)
    assert suite.reasoning == ("<a>", "</a>")
    assert suite.generation_kwargs.written == written["generation_kwargs"]
    assert parse(EvaluatorConfig, suite.model_dump(mode="json")) == suite


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"reasoning": "strip"}, "reasoning: expected auto, keep, or the two tags"),
        ({"reasoning": ["<a>"]}, "reasoning: expected auto, keep, or the two tags"),
        ({"reasoning": ["", ""]}, "reasoning: expected auto, keep, or the two tags"),
        ({"generation_kwargs": {"max_tokens": 8}}, "generation_kwargs"),
        ({"generation_kwargs": {"temperature": -1}}, "generation_kwargs.temperature"),
        ({"generation_kwargs": {"top_p": 0}}, "generation_kwargs.top_p"),
        ({"repeats": 0}, "repeats"),
        ({"chat_template_args": ["enable_thinking"]}, "chat_template_args"),
    ],
)
def test_settings_of_answers_that_mean_nothing_are_one_fault(
    wrong: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parse(EvaluatorConfig, {"tasks": ["a"], **wrong})
    (fault,) = error.value.faults
    assert str(fault).startswith(expected)
