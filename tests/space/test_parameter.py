from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.config.spaces import build_space
from evomerge.errors import ConfigError
from evomerge.models.architecture import KINDS, TensorRole
from evomerge.recipe.recipe import Recipe, Rule, Selector
from evomerge.space.baselines import baselines
from evomerge.space.protocol import ModelSet, Params, SearchSpace

MODELS = ModelSet("zoo:base", {"math": "zoo:math", "list": "zoo:list"}, n_layers=6)
LAYERWISE = {
    "method": "ties",
    "depth": {"groups": 3},
    "modules": {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]},
    "genes": {
        "coefficient": {"range": [0.0, 1.0]},
        "density": {"range": [0.1, 1.0], "per": ["expert"]},
        "lambda": {},
    },
}
CHOICE = {
    "method": {"choice": ["linear", "ties", "dare_ties"], "per": ["module"]},
    "modules": {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]},
    "genes": {
        "coefficient": {"range": [0.0, 1.0], "per": ["module", "expert"]},
        "density": {"range": [0.1, 1.0], "per": ["module"]},
    },
}
GLOBAL = {"method": "task_arithmetic", "genes": {"coefficient": {"range": [0.0, 1.2]}}}
MODIFIED = {
    "method": "ties",
    "depth": {"groups": 2},
    "genes": {
        "coefficient": {"range": [0.0, 1.0], "per": ["expert"]},
        "vote": {"choice": ["weighted", "count"], "per": ["depth"]},
        "normalize": {},
    },
    "fixed": {"density": 0.5},
    "modifiers": {"lines": {"alpha": 0.5, "beta": {"range": [0.0, 1.0]}}},
}
SPACES = {"layerwise": LAYERWISE, "choice": CHOICE, "global": GLOBAL, "modified": MODIFIED}


def space(content: dict[str, object], models: ModelSet = MODELS) -> SearchSpace:
    return build_space(content, models, "s.yaml")


@st.composite
def params_of(draw: st.DrawFn, found: SearchSpace) -> Params:
    """Draw params as a sampler would, through the space's own conditions."""
    values = {}
    for name, d in found.distributions.items():
        if isinstance(d, CategoricalDistribution):
            values[name] = draw(st.sampled_from(d.choices))
        elif isinstance(d, FloatDistribution):
            values[name] = draw(st.floats(d.low, d.high))
    return found.suggest(optuna.trial.FixedTrial(values))  # type: ignore[arg-type]


SCOPES = {
    "method": {"choice": ["breadcrumbs", "sce", "pcb"], "per": ["module"]},
    "depth": "per_layer",
    "modules": {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]},
    "genes": {
        "scope": {"choice": ["tensor", "row", "global"], "per": ["module"]},
        "select_topk": {"range": [0.5, 1.0], "initial": 1.0},
    },
    "fixed": {"clip": 0.01},
}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", [*SPACES, "scopes"])
def test_statistics_are_those_of_all_recipes(name: str, data: st.DataObject) -> None:
    found = space({**SPACES, "scopes": SCOPES}[name])
    recipe = found.recipe(data.draw(params_of(found)))
    assert set(recipe.statistics) <= set(found.statistics)


def test_statistics_are_no_more_than_recipes_may_ask_for() -> None:
    assert space(GLOBAL).statistics == ()
    assert space(LAYERWISE).statistics == ("magnitudes",)
    assert space(SCOPES).statistics == (
        "magnitudes",
        "model_magnitudes",
        "row_threshold",
        "scores 0.01",
        "task_gram",
        "variance",
    )
    fixed = {**SCOPES, "method": "breadcrumbs", "genes": {"density": {}}, "fixed": {"scope": "row"}}
    assert space(fixed).statistics == ("row_threshold",)


def test_gene_names_say_what_they_are_for() -> None:
    names = list(space(LAYERWISE).distributions)
    assert names[0] == "coefficient.attention.0.math"
    assert "density.list" in names
    assert "lambda" in names
    assert len(names) == 3 * 2 * 2 + 2 + 1


def test_a_global_space_has_one_gene_per_expert() -> None:
    assert list(space(GLOBAL).distributions) == ["coefficient.math", "coefficient.list"]


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_params_to_recipe_and_back_is_the_identity(name: str, data: st.DataObject) -> None:
    found = space(SPACES[name])
    params = data.draw(params_of(found))
    assert found.params(found.recipe(params)) == params


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_different_params_give_different_recipes(name: str, data: st.DataObject) -> None:
    found = space(SPACES[name])
    one, two = data.draw(params_of(found)), data.draw(params_of(found))
    assert (one == two) == (found.recipe(one).digest == found.recipe(two).digest)


@pytest.mark.parametrize("name", SPACES)
def test_every_tensor_has_exactly_one_cell(name: str) -> None:
    found = space(SPACES[name])
    recipe = found.recipe(found.defaults)
    for layer in range(MODELS.n_layers):
        for kind in KINDS:
            role = TensorRole(layer, kind)
            matching = [rule for rule in recipe.rules if rule.where.matches("", role)]
            assert len(matching) == 1


def test_parameters_of_other_methods_are_inactive() -> None:
    found = space(CHOICE)
    genes = dict(found.defaults)
    genes |= {"method.attention": "linear", "method.rest": "ties"}
    params = found.suggest(optuna.trial.FixedTrial(genes))  # type: ignore[arg-type]
    assert "density.attention" not in params
    assert "density.rest" in params
    rules = found.recipe(params).rules
    assert [rule.method for rule in rules] == ["linear", "ties"]
    assert "density" not in rules[0].parameters


def test_modifiers_and_choices_are_genes() -> None:
    found = space(MODIFIED)
    assert list(found.distributions) == [
        "coefficient.math",
        "coefficient.list",
        "vote.0",
        "vote.1",
        "normalize",
        "lines:beta",
    ]
    recipe = found.recipe(dict(found.defaults) | {"vote.1": "count", "lines:beta": 0.25})
    assert [rule.parameters["vote"] for rule in recipe.rules] == ["weighted", "count"]
    assert all(rule.modifiers == {"lines": {"alpha": 0.5, "beta": 0.25}} for rule in recipe.rules)
    assert recipe.faults() == []


def test_a_recipe_the_space_cannot_express_has_no_params() -> None:
    found = space(GLOBAL)
    base, experts = MODELS.base, MODELS.experts
    outside = Recipe(experts, (Rule("task_arithmetic", {"coefficient": 2.0}),), base=base)
    other = Recipe(experts, (Rule("ties"),), base=base)
    layered = Recipe(
        experts,
        (
            Rule("task_arithmetic", {"coefficient": 0.5}, Selector(layers=(0, 2))),
            Rule("task_arithmetic", {"coefficient": 0.7}),
        ),
        base=base,
    )
    assert [found.params(r) for r in (outside, other, layered)] == [None, None, None]


def test_baselines_are_found_in_spaces_that_can_express_them() -> None:
    by_origin = {b.origin: b for b in baselines(space(LAYERWISE), MODELS)}
    assert list(by_origin) == ["base", "expert:math", "expert:list", "uniform"]
    math = by_origin["expert:math"].params
    assert math is not None
    assert math["coefficient.rest.2.math"] == 1.0
    assert math["density.math"] == 1.0
    assert by_origin["uniform"].params is None  # an election is not an average
    everywhere = {b.origin: b.params for b in baselines(space(GLOBAL), MODELS)}
    assert everywhere["uniform"] == {"coefficient.math": 0.5, "coefficient.list": 0.5}
    assert everywhere["base"] == {"coefficient.math": 0.0, "coefficient.list": 0.0}


def test_the_ends_of_a_slerp_are_its_two_experts() -> None:
    found = space({"method": "slerp", "genes": {"t": {}}})
    by_origin = {b.origin: b.params for b in baselines(found, MODELS)}
    assert by_origin["expert:math"] == {"t": 0.0}
    assert by_origin["expert:list"] == {"t": 1.0}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"genes": {"coefficient": {"range": [1.0, 0.0]}}}, "low < high"),
        ({"genes": {"density": {}}}, "no method here (task_arithmetic) has it"),
        ({"genes": {"coefficient": {"range": [0.0, 1.0], "log": True}}}, "must be positive"),
        ({"genes": {"coefficient": {"initial": 4.0}}}, "initial: expected a value in [0, 1]"),
        ({"genes": {"lambda": {"per": ["expert"]}}}, "all experts share this"),
        ({"genes": {"coefficient": {"rang": [0, 1]}}}, "did you mean 'range'"),
        ({"method": "tise"}, "did you mean 'ties'"),
        ({"method": {"choice": []}}, "at least one method"),
        ({"depth": {"groups": 7}}, "expected 1 to 6"),
        ({"depth": "sometimes"}, "depth"),
        ({"modules": {"a": ["mlp"]}}, "expected 'attention' in exactly one group"),
        ({"fixed": {"density": 0.5}}, "fixed.density: no method here"),
        ({"fixed": {"coefficient": 0.5}}, "it is a gene already"),
        ({"method": "slerp", "genes": {"t": {}}}, "slerp merges 1 to 2 experts, got 3"),
        ({"kind": "magic"}, "expected one of parameter"),
        ({"modifiers": {"linse": {}}}, "did you mean 'lines'"),
        ({"modifiers": {"lines": {"gamma": 1.0}}}, "lines:gamma"),
        ({"modifiers": {"lines": {"beta": {"choice": ["a"]}}}}, "this parameter is a number"),
        ({"genes": {"normalize": {"range": [0.0, 1.0]}}}, "use choice"),
        ({"genes": {"normalize": {"choice": ["maybe"]}}}, "expected true or false"),
    ],
)
def test_bad_spaces_are_refused(change: dict[str, object], expected: str) -> None:
    three = ModelSet("b", {"a": "a", "b": "b", "c": "c"}, n_layers=6)
    with pytest.raises(ConfigError) as error:
        space({**GLOBAL, **change}, three)
    assert expected in str(error.value)


def test_all_faults_of_a_space_are_reported_at_once() -> None:
    bad = {**GLOBAL, "depth": {"groups": 0}, "fixed": {"density": 1}, "genes": {"gamma": {}}}
    with pytest.raises(ConfigError) as error:
        space(bad)
    assert len(error.value.faults) == 3
