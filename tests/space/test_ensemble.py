"""Spaces of ensembles: shares that sum to one, alphas of proxy tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest

from evomerge.errors import ConfigError, RecipeError
from evomerge.recipe.ensemble import OutputMix
from evomerge.recipe.files import recipe_from_data
from evomerge.recipe.recipe import Recipe
from evomerge.runs.parts import build_space, space_faults
from evomerge.space.baselines import baselines, over_models
from evomerge.space.protocol import ModelSet

MODELS = ModelSet("zoo:base", {"a": "zoo:math", "b": "zoo:list", "c": "zoo:facts"}, n_layers=6)


def weights(params: dict[str, float], **keys: Any) -> dict[str, float]:
    found = build_space({"kind": "ensemble", **keys}, MODELS).recipe(params).ensemble
    assert found is not None
    return dict(found.shares)


def test_shares_start_out_equal_and_always_sum_to_one() -> None:
    space = build_space({"kind": "ensemble"}, MODELS)
    assert weights(dict(space.defaults)) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    trial = optuna.create_study().ask()
    found = space.recipe(space.suggest(trial)).ensemble
    assert found is not None
    assert sum(found.weights.values()) == pytest.approx(1.0)
    assert weights({"share.a": 1.0}) == {"a": 1.0}, "who has everything answers alone"


def test_alphas_are_those_of_proxy_tuning() -> None:
    """Of base + alpha * (expert - base) the weights of the models' logits."""
    params = {"alpha.a": 1.5, "alpha.b": 0.25, "alpha.c": 0.0}
    found = weights(params, by="proxy")
    assert found == pytest.approx({"base": 1 - 1.5 - 0.25, "a": 1.5, "b": 0.25})


@pytest.mark.parametrize("keys", [{}, {"by": "logits", "base": True}, {"by": "proxy"}])
def test_params_are_read_off_a_recipe(keys: dict[str, Any]) -> None:
    space = build_space({"kind": "ensemble", **keys}, MODELS)
    params = {name: 0.3 + i / 10 for i, name in enumerate(space.distributions)}
    recipe = space.recipe(params)
    assert space.params(recipe) == pytest.approx(params)
    assert recipe_from_data(recipe.as_data()) == recipe
    assert (
        build_space({"method": "linear", "genes": {"coefficient": {}}}, MODELS).params(recipe)
        is None
    )


def test_single_models_are_in_the_space_and_averages_of_weights_are_not() -> None:
    found = {
        one.origin: one for one in baselines(build_space({"kind": "ensemble"}, MODELS), MODELS)
    }
    params = found["expert:b"].params
    assert params is not None
    assert weights(dict(params)) == {"b": 1.0}
    assert found["base"].params is None, "the base is none of them"
    assert found["uniform"].params is None
    in_proxy = baselines(build_space({"kind": "ensemble", "by": "proxy"}, MODELS), MODELS)
    assert in_proxy[0].params == {"alpha.a": 0.0, "alpha.b": 0.0, "alpha.c": 0.0}


def test_logits_that_count_against_others_are_no_shares() -> None:
    mix = OutputMix("logits", {"a": 1.5, "b": -0.5, "c": 0.0})
    recipe = replace(MODELS.recipe(()), ensemble=mix)
    assert build_space({"kind": "ensemble", "by": "logits"}, MODELS).params(recipe) is None


def test_seeds_have_the_names_of_the_experiment() -> None:
    theirs = Recipe(
        {"x": "zoo:math", "y": "zoo:list", "z": "zoo:facts"},
        (),
        base="zoo:base",
        ensemble=OutputMix("logits", {"base": 1.0, "y": 2.0}),
    )
    found = over_models(theirs, MODELS).ensemble
    assert found == OutputMix("logits", {"base": 1.0, "b": 2.0})


@pytest.mark.parametrize(
    ("keys", "n", "expected"),
    [
        ({"alpha": [0, 1]}, 2, "alpha: by: probabilities has shares"),
        ({"by": "proxy", "alpha": [1, 1]}, 2, "alpha: expected [low, high] with low < high"),
        ({"by": "proxy", "alpha": [0, float("inf")]}, 2, "alpha: expected [low, high] with low"),
        ({"by": "proxy", "base": True}, 2, "base: by: proxy has the base already"),
        ({}, 1, "base: expected at least two models, got one expert"),
        ({"by": "votes"}, 2, "by: "),
    ],
)
def test_what_is_wrong_is_said_by_key(keys: dict[str, Any], n: int, expected: str) -> None:
    models = ModelSet("zoo:base", dict(list(MODELS.experts.items())[:n]), n_layers=6)
    (fault,) = space_faults({"kind": "ensemble", **keys}, models)
    assert str(fault).startswith(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weights": {"d": 1.0}}, "ensemble.weights.d: expected one of base, a, b, c, got 'd'"),
        ({"weights": {"a": -1.0, "b": 2.0}}, "ensemble.weights: expected weights of at least 0"),
        ({"weights": {"a": 0.0}}, "ensemble.weights: expected finite weights with a sum above 0,"),
        ({"weights": {"a": float("inf")}}, "ensemble.weights: expected finite weights"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_it(changes: dict[str, Any], expected: str) -> None:
    content = {**MODELS.recipe(()).as_data(), "ensemble": {"by": "probabilities", **changes}}
    with pytest.raises(ConfigError) as found:
        recipe_from_data(content)
    assert str(found.value.faults[0]).startswith(expected)


def test_it_is_refused_where_one_model_is_wanted() -> None:
    recipe = build_space({"kind": "ensemble"}, MODELS).recipe({"share.a": 0.0, "share.b": 1.0})
    with pytest.raises(RecipeError, match=r"models: \[zoo:list\], by: probabilities, weights: \[1"):
        _ = recipe.bound_methods
