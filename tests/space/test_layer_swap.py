from __future__ import annotations

from itertools import product

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution

from evomerge.errors import ConfigError
from evomerge.models.architecture import TensorRole
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import build_space
from evomerge.space.baselines import baselines
from evomerge.space.protocol import ModelSet, Params, SearchSpace

MODELS = ModelSet("zoo:base", {"math": "zoo:math", "list": "zoo:list"}, n_layers=12)
SPACES: dict[str, dict[str, object]] = {
    "regions": {},
    "with base": {"sources": ["base", "math", "list"], "transition": [0, 1]},
    "fixed transition": {"bottom": [1, 3], "top": [2, 2], "transition": [2, 2]},
    "per layer": {"per_layer": True},
    "per layer with base": {"per_layer": True, "sources": ["base", "list"]},
}


def space(content: dict[str, object], models: ModelSet = MODELS) -> SearchSpace:
    return build_space({"kind": "layer_swap", **content}, models)


@st.composite
def params_of(draw: st.DrawFn, found: SearchSpace) -> Params:
    values: dict[str, object] = {}
    for name, d in found.distributions.items():
        if isinstance(d, CategoricalDistribution):
            values[name] = draw(st.sampled_from(d.choices))
        elif isinstance(d, IntDistribution):
            values[name] = draw(st.integers(d.low, d.high))
    return found.suggest(optuna.trial.FixedTrial(values))  # type: ignore[arg-type]


def coefficients(recipe: Recipe, expert: str) -> list[float]:
    rules = (recipe.rules[recipe.rule_for("", TensorRole(i, "mlp"))] for i in range(12))
    return [rule.parameters["coefficient"][expert] for rule in rules]  # type: ignore[index, call-overload, misc]


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_params_to_recipe_and_back_is_the_identity(name: str, data: st.DataObject) -> None:
    found = space(SPACES[name])
    params = data.draw(params_of(found))
    recipe = found.recipe(params)
    assert recipe.faults() == []
    assert found.params(recipe) == params


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_different_params_give_different_recipes(name: str, data: st.DataObject) -> None:
    found = space(SPACES[name])
    one, two = data.draw(params_of(found)), data.draw(params_of(found))
    assert (one == two) == (found.recipe(one).digest == found.recipe(two).digest)


def test_no_two_points_of_a_small_space_are_the_same_model() -> None:
    found = space({}, ModelSet("b", {"x": "x", "y": "y"}, n_layers=6))
    values = [getattr(d, "choices", range(1, 3)) for d in found.distributions.values()]
    drawn = [dict(zip(found.distributions, point, strict=True)) for point in product(*values)]
    suggested = [found.suggest(optuna.trial.FixedTrial(genes)) for genes in drawn]
    trials = {tuple(params.items()): params for params in suggested}.values()
    assert len(trials) == 2 * (1 + 2 + 2 + 4)  # neither region, bottom, top, both
    assert len({found.recipe(params).digest for params in trials}) == len(trials)


def test_regions_fade_into_the_middle() -> None:
    found = space({"bottom": [1, 4], "top": [1, 3], "transition": [0, 2]})
    sources = {"source.bottom": "list", "source.middle": "math", "source.top": "list"}
    recipe = found.recipe({**sources, "bottom": 2, "top": 3, "transition": 1})
    expected = [1, 1, 0.5, 0, 0, 0, 0, 0, 0.5, 1, 1, 1]
    assert coefficients(recipe, "list") == pytest.approx(expected)
    assert coefficients(recipe, "math") == pytest.approx([1 - c for c in expected])
    assert [rule.method for rule in recipe.rules] == ["linear"] * 5


def test_the_base_is_what_the_experts_leave() -> None:
    found = space({"sources": ["base", "math"], "transition": [0, 1]})
    sources = {"source.bottom": "base", "source.middle": "math", "source.top": "math"}
    recipe = found.recipe({**sources, "bottom": 2, "transition": 1})
    assert coefficients(recipe, "math") == pytest.approx([0, 0, 0.5] + [1] * 9)
    assert [rule.method for rule in recipe.rules] == ["task_arithmetic"] * 2 + ["linear"]


def test_sizes_of_a_region_like_the_middle_are_inactive() -> None:
    found = space({})
    genes = dict(found.defaults)
    same = genes | dict.fromkeys(("source.bottom", "source.middle", "source.top"), "math")
    params = found.suggest(optuna.trial.FixedTrial(same))  # type: ignore[arg-type]
    assert set(params) == {"source.bottom", "source.middle", "source.top"}
    assert len(found.recipe(params).rules) == 1


@pytest.mark.parametrize("name", ["regions", "per layer"])
def test_parents_are_in_the_space_and_averages_are_not(name: str) -> None:
    found = space(SPACES[name])
    by_origin = {b.origin: b.params for b in baselines(found, MODELS)}
    assert by_origin["base"] is None
    assert by_origin["uniform"] is None
    for expert in MODELS.experts:
        params = by_origin[f"expert:{expert}"]
        assert params is not None
        assert set(params.values()) == {expert}


def test_recipes_that_do_more_than_swap_have_no_params() -> None:
    rules = (Rule("ties"), Rule("linear", {"coefficient": 0.5, "normalize": False}))
    found = [space({}).params(Recipe(MODELS.experts, (r,), base=MODELS.base)) for r in rules]
    assert found == [None, None]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"sources": ["math"]}, "at least two different ones"),
        ({"sources": ["math", "code"]}, "expected base or math or list, got 'code'"),
        ({"bottom": [0, 3]}, "1 <= fewest <= most, got [0, 3]"),
        ({"transition": [3, 1]}, "0 <= fewest <= most, got [3, 1]"),
        ({"bottom": [1, 8], "top": [1, 4]}, "below 12 (the models' layers)"),
        ({"per_layer": True, "top": [1, 2]}, "top: every layer chooses for itself"),
        ({"botom": [1, 2]}, "did you mean 'bottom'"),
    ],
)
def test_bad_spaces_are_refused(content: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        space(content)
    assert expected in str(error.value)
