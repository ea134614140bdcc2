from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.errors import SpaceError
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import build_space
from evomerge.space.baselines import Seeds, baselines, over_models
from evomerge.space.protocol import ModelSet, Params

MODELS = ModelSet("zoo:base", {"math": "zoo:math", "list": "zoo:list"}, n_layers=6, seed=3)
GLOBAL = {"method": "task_arithmetic", "genes": {"coefficient": {"range": [0.0, 1.2]}}}
SCALED = {
    "method": "task_arithmetic",
    "genes": {"coefficient": {"sum_to_one": True}, "lambda": {"range": [0.3, 2.0]}},
}


def found(content: dict[str, object], seeds: Seeds) -> dict[str, Params | None]:
    space = build_space(content, MODELS)
    return {one.origin: one.params for one in baselines(space, MODELS, seeds)}


def test_every_seed_can_be_switched_off() -> None:
    assert list(found(GLOBAL, Seeds())) == ["base", "expert:math", "expert:list", "uniform"]
    assert list(found(GLOBAL, Seeds(parents=False))) == ["uniform"]
    assert found(GLOBAL, Seeds(parents=False, averages=False)) == {}


def test_a_sweep_of_task_arithmetic_adds_one_model_per_coefficient() -> None:
    seeds = Seeds(parents=False, averages=False, task_arithmetic=(0.3, 1.0))
    assert found(GLOBAL, seeds) == {
        "task_arithmetic:0.3": {"coefficient.math": 0.3, "coefficient.list": 0.3},
        "task_arithmetic:1": {"coefficient.math": 1.0, "coefficient.list": 1.0},
    }
    scaled = found(SCALED, seeds)
    assert scaled["task_arithmetic:0.3"] == pytest.approx({"coefficient.math": 0.5, "lambda": 0.6})
    assert scaled["task_arithmetic:1"] == pytest.approx({"coefficient.math": 0.5, "lambda": 2.0})


def test_the_same_model_is_a_seed_once() -> None:
    seeds = Seeds(task_arithmetic=(0.5,), recipes={"recipe:x": _sum(0.7), "recipe:y": _sum(0.7)})
    assert list(found(GLOBAL, seeds)) == [
        "base",
        "expert:math",
        "expert:list",
        "uniform",
        "recipe:x",
    ]


def test_a_recipe_outside_the_space_is_a_seed_without_params() -> None:
    recipe = MODELS.recipe((Rule("karcher"),))
    assert found(GLOBAL, Seeds(recipes={"recipe:x": recipe}))["recipe:x"] is None


def test_a_recipe_takes_the_names_and_order_of_the_models() -> None:
    rule = Rule("ties", {"coefficient": {"a": 0.1, "b": 0.9}, "density": 0.5})
    theirs = Recipe({"a": "zoo:list", "b": "zoo:math"}, (rule,), base="zoo:base", seed=9)
    ours = over_models(theirs, MODELS)
    assert list(ours.experts) == ["math", "list"]
    assert ours.rules[0].parameters["coefficient"] == {"list": 0.1, "math": 0.9}
    assert (ours.base, ours.seed, ours.dtype) == ("zoo:base", 3, None)
    assert ours.faults() == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base": "zoo:other"}, "expected the base zoo:base, got zoo:other"),
        ({"experts": {"math": "zoo:math"}}, "exactly the experts zoo:math, zoo:list"),
        ({"experts": {"math": "zoo:math", "c": "zoo:facts"}}, "got zoo:math, zoo:facts"),
    ],
)
def test_recipes_over_other_models_are_refused(change: dict[str, object], expected: str) -> None:
    with pytest.raises(SpaceError, match=expected):
        over_models(replace(_sum(0.5), **change), MODELS)  # type: ignore[arg-type]


def _sum(coefficient: float) -> Recipe:
    return MODELS.recipe((Rule("task_arithmetic", {"coefficient": coefficient}),))
