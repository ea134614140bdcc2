from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge.errors import ConfigError
from evomerge.models.architecture import TensorRole
from evomerge.recipe.recipe import Recipe, Rule, Selector
from evomerge.runs.parts import build_space
from evomerge.space.baselines import baselines
from evomerge.space.depth import families
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
POINTS = {
    "method": "ties",
    "depth": {"control_points": 3},
    "modules": {"attention": ["attention"], "mlp": ["mlp", "norm"], "ends": ["embedding", "head"]},
    "genes": {
        "coefficient": {"range": [0.0, 1.2]},
        "density": {"range": [0.05, 1.0], "log": True, "per": ["depth"]},
        "lambda": {},
    },
}
BOUNDARIES = {**GLOBAL, "depth": {"boundaries": [0, 1, 4]}}
SHARES = {
    "method": "task_arithmetic",
    "depth": {"control_points": 3},
    "genes": {"coefficient": {"sum_to_one": True}, "lambda": {"per": ["depth"]}},
}
LEAST = {**GLOBAL, "genes": {"coefficient": {"sum_to_one": True, "range": [0.1, 1.0]}}}
FEW = {
    "method": {"choice": ["linear", "ties", "slerp"], "per": ["depth"]},
    "depth": {"groups": 2},
    "genes": {
        "coefficient": {"range": [0.05, 1.0], "max_active": 1},
        "density": {"range": [0.1, 1.0], "per": ["expert"]},
        "t": {},
    },
}
FEW_SHARES = {
    "method": "task_arithmetic",
    "depth": {"groups": 2},
    "genes": {"coefficient": {"range": [0.05, 1.0], "max_active": 2, "sum_to_one": True}},
}
NAMED = {
    **GLOBAL,
    "depth": "per_layer",
    "modules": {
        "gates": {"names": "gate_proj"},
        "rest": ["attention", "mlp", "norm", "embedding", "head"],
    },
}
SPACES = {
    "layerwise": LAYERWISE,
    "choice": CHOICE,
    "global": GLOBAL,
    "modified": MODIFIED,
    "control points": POINTS,
    "boundaries": BOUNDARIES,
    "shares": SHARES,
    "shares of at least": LEAST,
    "few": FEW,
    "shares of a few": FEW_SHARES,
    "named": NAMED,
}
THREE = ModelSet("zoo:base", {"a": "zoo:math", "b": "zoo:list", "c": "zoo:facts"}, n_layers=6)
TENSORS = {f"layers.{i}.mlp.gate_proj.weight": TensorRole(i, "mlp") for i in (1, 2, 4)}
TENSORS |= {f"layers.{i}.mlp.up_proj.weight": TensorRole(i, "mlp") for i in range(6)}
WITH_NAMES = replace(MODELS, tensors=TENSORS)
MIXED = dict.fromkeys(SPACES, MODELS) | {"shares of a few": THREE, "named": WITH_NAMES}


def space(content: dict[str, object], models: ModelSet = MODELS) -> SearchSpace:
    return build_space(content, models)


def named_space(name: str) -> SearchSpace:
    return space(SPACES[name], MIXED[name])


@st.composite
def params_of(draw: st.DrawFn, found: SearchSpace) -> Params:
    """Draw params as a sampler would, through the space's own conditions.

    Numbers come from a grid with both edges: recipes of neighbours closer than rounding error are
    not told apart.
    """
    values = {}
    for name, d in found.distributions.items():
        if isinstance(d, CategoricalDistribution):
            values[name] = draw(st.sampled_from(d.choices))
        elif isinstance(d, FloatDistribution):
            values[name] = d.low + draw(st.integers(0, 50)) / 50 * (d.high - d.low)
    return found.suggest(optuna.trial.FixedTrial(values))  # type: ignore[arg-type]


def values_at(recipe: Recipe, models: ModelSet, parameter: str) -> list[dict[str, float]]:
    rules = (recipe.rules[recipe.rule_for(n, r)] for n, r in models.roles.items())
    return [dict(rule.parameters[parameter]) for rule in rules if parameter in rule.parameters]


SCOPES = {
    "method": {"choice": ["breadcrumbs", "sce", "pcb"], "per": ["module"]},
    "depth": "per_layer",
    "modules": {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]},
    "genes": {
        "scope": {"choice": ["tensor", "global"], "per": ["module"]},
        "select_topk": {"range": [0.5, 1.0], "initial": 1.0},
    },
    "fixed": {"clip": 0.01},
}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", [*SPACES, "scopes"])
def test_statistics_are_those_of_all_recipes(name: str, data: st.DataObject) -> None:
    found = space({**SPACES, "scopes": SCOPES}[name], MIXED.get(name, MODELS))
    recipe = found.recipe(data.draw(params_of(found)))
    assert set(recipe.statistics) <= set(found.statistics)


def test_statistics_are_no_more_than_recipes_may_ask_for() -> None:
    assert space(GLOBAL).statistics == ()
    assert space(LAYERWISE).statistics == ("magnitudes",)
    assert space(SCOPES).statistics == (
        "magnitudes",
        "model_magnitudes",
        "model_scores 0.01",
        "model_variance",
        "scores 0.01",
        "task_gram",
        "variance",
    )
    fixed = {**SCOPES, "method": "breadcrumbs", "genes": {"density": {}}, "fixed": {"scope": "row"}}
    assert space(fixed).statistics == ("row_magnitudes",)


def test_gene_names_say_what_they_are_for() -> None:
    names = list(space(LAYERWISE).distributions)
    assert names[0] == "coefficient.attention.0.math"
    assert "density.list" in names
    assert "lambda" in names
    assert len(names) == 3 * 2 * 2 + 2 + 1


def test_genes_know_their_depth_whatever_experts_are_called() -> None:
    models = ModelSet("zoo:base", {"7": "zoo:math", "9": "zoo:list"}, n_layers=6)
    assert space(GLOBAL, models).depths == {}
    found = space({**GLOBAL, "depth": {"groups": 2}}, models)
    assert found.depths == {
        f"coefficient.{group}.{expert}": group for group in (0, 1) for expert in ("7", "9")
    }


def test_a_family_has_all_depths_of_one_kind_whatever_experts_and_modules_are_called() -> None:
    models = ModelSet("zoo:base", {"0": "zoo:math", "1": "zoo:list"}, n_layers=6)
    modules = {"0": ["attention"], "1": ["mlp"], "x": ["norm", "embedding", "head"]}
    found = space({**GLOBAL, "depth": {"groups": 2}, "modules": modules}, models)
    named = families(found.depths)
    members = [
        {gene for gene, family in named.items() if family == one} for one in set(named.values())
    ]
    assert sorted(map(sorted, members)) == sorted(
        sorted(f"coefficient.{module}.{group}.{expert}" for group in (0, 1))
        for module in modules
        for expert in ("0", "1")
    )


def test_a_global_space_has_one_gene_per_expert() -> None:
    assert list(space(GLOBAL).distributions) == ["coefficient.math", "coefficient.list"]


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_params_to_recipe_and_back_is_the_identity(name: str, data: st.DataObject) -> None:
    found = named_space(name)
    params = data.draw(params_of(found))
    assert found.params(found.recipe(params)) == pytest.approx(params, abs=1e-9)


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_different_params_give_different_recipes(name: str, data: st.DataObject) -> None:
    found = named_space(name)
    one, two = data.draw(params_of(found)), data.draw(params_of(found))
    assert (one == two) == (found.recipe(one).digest == found.recipe(two).digest)


@pytest.mark.parametrize("name", SPACES)
def test_every_tensor_has_exactly_one_cell(name: str) -> None:
    found, models = named_space(name), MIXED[name]
    recipe = found.recipe(found.defaults)
    assert recipe.faults() == []
    for tensor, role in models.roles.items():
        matching = [rule for rule in recipe.rules if rule.where.matches(tensor, role)]
        by_name = [rule for rule in matching if rule.where.names]
        assert len(by_name or matching) == 1
        assert recipe.rules[recipe.rule_for(tensor, role)] == (by_name or matching)[0]


@pytest.mark.parametrize("name", ["shares", "shares of at least", "shares of a few"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_shares_sum_to_one_in_every_tensor(name: str, data: st.DataObject) -> None:
    found = named_space(name)
    recipe = found.recipe(data.draw(params_of(found)))
    for shares in values_at(recipe, MIXED[name], "coefficient"):
        assert sum(shares.values()) == pytest.approx(1.0)
        assert all(0.0 <= share <= 1.0 for share in shares.values())
        if name == "shares of at least":
            assert min(shares.values()) >= 0.1 - 1e-12


@pytest.mark.parametrize(("name", "most"), [("few", 1), ("shares of a few", 2)])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_at_most_k_experts_take_part(name: str, most: int, data: st.DataObject) -> None:
    found = named_space(name)
    params = data.draw(params_of(found))
    recipe = found.recipe(params)
    for coefficients in values_at(recipe, MIXED[name], "coefficient"):
        active = [expert for expert, c in coefficients.items() if c != 0.0]
        assert 1 <= len(active) <= most
    genes_of_math = {name for name in params if name.endswith(".math")}
    takes_part = any("math" in str(v) for k, v in params.items() if k.startswith("experts"))
    assert takes_part or not genes_of_math


def test_control_points_are_interpolated_over_the_layers() -> None:
    found = space({**GLOBAL, "depth": {"control_points": 2}})
    assert list(found.distributions) == [
        "coefficient.0.math",
        "coefficient.0.list",
        "coefficient.1.math",
        "coefficient.1.list",
    ]
    ends = {"coefficient.0.math": 0.0, "coefficient.1.math": 1.0}
    recipe = found.recipe(dict(found.defaults) | ends)
    by_layer = [recipe.rules[recipe.rule_for("", TensorRole(i, "mlp"))] for i in range(6)]
    assert [rule.parameters["coefficient"]["math"] for rule in by_layer] == pytest.approx(  # type: ignore[index, call-overload]
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    )
    assert by_layer[0] is recipe.rules[recipe.rule_for("", TensorRole(0, "embedding"))]


def test_logarithmic_control_points_are_interpolated_logarithmically() -> None:
    gene = {"range": [0.01, 1.0], "log": True, "per": ["depth"]}
    models = replace(MODELS, n_layers=3)
    found = space(
        {"method": "ties", "depth": {"control_points": 2}, "genes": {"density": gene}}, models
    )
    recipe = found.recipe({"density.0": 0.01, "density.1": 1.0})
    middle = recipe.rules[recipe.rule_for("", TensorRole(1, "mlp"))].parameters["density"]
    assert middle["math"] == pytest.approx(0.1)  # type: ignore[index, call-overload]


def test_equal_neighbours_share_a_rule() -> None:
    found = space({**GLOBAL, "depth": "per_layer"})
    params = dict(found.defaults) | {"coefficient.5.math": 0.9}
    assert [rule.where.layers for rule in found.recipe(params).rules] == [(0, 5), (5, 6)]
    assert len(found.recipe(found.defaults).rules) == 1


def test_layers_without_a_module_have_no_genes() -> None:
    names = [n for n in named_space("named").distributions if ".gates." in n]
    assert [n.split(".")[2] for n in names[::2]] == ["1", "2", "4"]
    ends = [
        n for n in named_space("control points").distributions if n.startswith("coefficient.ends")
    ]
    assert len(ends) == 2 * 2  # embedding and head: two points for two experts


def test_boundaries_are_where_groups_begin() -> None:
    found = space(BOUNDARIES)
    params = dict(found.defaults) | {"coefficient.1.math": 0.9, "coefficient.2.math": 0.1}
    assert [rule.where.layers for rule in found.recipe(params).rules] == [(0, 1), (1, 4), (4, 6)]
    assert [g.meaning for g in found.describe()][2].startswith("math, layers 1-3: ")


def test_a_share_that_takes_everything_ends_the_list() -> None:
    found = space({**GLOBAL, "genes": {"coefficient": {"sum_to_one": True}}}, THREE)
    assert list(found.distributions) == ["coefficient.a", "coefficient.b"]
    taken = found.suggest(optuna.trial.FixedTrial({"coefficient.a": 1.0, "coefficient.b": 0.3}))  # type: ignore[arg-type]
    assert taken == {"coefficient.a": 1.0}
    thirds = found.recipe(found.defaults).rules[0].parameters["coefficient"]
    assert thirds == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    parents = {b.origin: b.params for b in baselines(found, THREE)}
    assert parents["expert:b"] == {"coefficient.a": 0.0, "coefficient.b": 1.0}
    assert parents["uniform"] == pytest.approx(dict(found.defaults))
    assert parents["base"] is None


def test_an_expert_may_start_elsewhere() -> None:
    found = space({**GLOBAL, "genes": {"coefficient": {"initial": {"math": 0.8}}}})
    assert found.defaults == {"coefficient.math": 0.8, "coefficient.list": 0.5}


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
        ({"depth": {"control_points": 1}}, "expected 2 to 6"),
        ({"depth": {"boundaries": [1, 3]}}, "rising from 0 to less than 6"),
        ({"depth": {"boundaries": [0, 3, 3]}}, "rising from 0"),
        ({"depth": {"importance": 0}}, "expected 1 to 6"),
        (
            {"depth": {"control_points": 2}, "method": {"choice": ["linear"], "per": ["depth"]}},
            "method.per: a choice of methods cannot be interpolated",
        ),
        (
            {
                "depth": {"control_points": 2},
                "genes": {"coefficient": {"range": [0.1, 1], "max_active": 1}},
            },
            "a choice of experts cannot be interpolated",
        ),
        ({"genes": {"coefficient": {"max_active": 2}}}, "expected a range without 0"),
        ({"genes": {"coefficient": {"range": [0.1, 1], "max_active": 4}}}, "expected 1 to 3"),
        ({"genes": {"lambda": {"sum_to_one": True}}}, "expected a parameter with a value per"),
        ({"genes": {"coefficient": {"sum_to_one": True, "range": [0.5, 1]}}}, "smallest share"),
        ({"genes": {"coefficient": {"sum_to_one": True, "initial": 0.5}}}, "start out equal"),
        ({"genes": {"coefficient": {"initial": {"d": 0.5}}}}, "'d' is not one of the experts"),
        ({"modules": {"a": {"names": "("}}}, "expected a regular expression"),
        ({"modules": {"a": ["mlp"]}}, "expected 'attention' in exactly one group"),
        ({"fixed": {"density": 0.5}}, "fixed.density: no method here"),
        ({"fixed": {"coefficient": 0.5}}, "it is a gene already"),
        ({"method": "slerp", "genes": {"t": {}}}, "slerp merges 1 to 2 experts, got 3"),
        ({"kind": "magic"}, "expected one of parameter, layer_swap, dataflow, hybrid"),
        ({"modifiers": {"linse": {}}}, "did you mean 'lines'"),
        ({"modifiers": {"lines": {"gamma": 1.0}}}, "lines.gamma"),
        ({"modifiers": {"lines": {"beta": {"choice": ["a"]}}}}, "this parameter is a number"),
        ({"genes": {"normalize": {"range": [0.0, 1.0]}}}, "use choice"),
        ({"genes": {"normalize": {"choice": ["maybe"]}}}, "expected true or false"),
        ({"genes": {"normalize": {"choice": []}}}, "different values, at least one, got []"),
        ({"genes": {"normalize": {"choice": [True, True]}}}, "expected different values"),
        ({"method": {"choice": ["ties", "ties"]}}, "expected different ones, got ties, ties"),
        ({"fixed": {"lambda": {"a": 0.5}}}, "fixed.lambda: expected one value for all experts"),
        ({"genes": {}, "fixed": {"coefficient": {"z": 1}}}, "fixed.coefficient: 'z' is not one"),
        ({"kind": ["parameter"]}, "expected one of parameter, layer_swap, dataflow, hybrid"),
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


@pytest.mark.parametrize("depth", ["global", {"groups": 2}, {"control_points": 2}])
def test_a_module_without_tensors_has_no_genes(depth: object) -> None:
    """Where the names of another group are those of every tensor."""
    modules = {"all": {"names": ""}, "other": ["attention", "mlp", "norm", "embedding", "head"]}
    found = space({**GLOBAL, "depth": depth, "modules": modules})
    assert found.distributions
    assert all(gene.startswith("coefficient.all.") for gene in found.distributions)


@pytest.mark.parametrize("layers", [(2,), (0, 1, 11), (3, 4), (5,), (0, 11), (1, 2, 4, 7)])
def test_control_points_of_sparse_modules_stay_independent(layers: tuple[int, ...]) -> None:
    tensors = {f"l{i}.gate": TensorRole(i, "mlp") for i in layers}
    tensors |= {f"l{i}.up": TensorRole(i, "mlp") for i in range(12)}
    content = {**NAMED, "depth": {"control_points": 4}}
    content["modules"] = {**NAMED["modules"], "gates": {"names": "gate"}}  # type: ignore[dict-item]
    found = space(content, replace(MODELS, n_layers=12, tensors=tensors))
    params = {n: 0.01 + 0.02 * i for i, n in enumerate(found.distributions)}
    assert found.params(found.recipe(params)) == pytest.approx(params)
