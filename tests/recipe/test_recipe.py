from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import ConfigError, RecipeError
from evomerge.models.architecture import KINDS, TensorRole
from evomerge.recipe.files import dump_recipe, load_recipe, recipe_from_data
from evomerge.recipe.recipe import Recipe, Rule, Selector

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
NUMBER = st.floats(0, 1, allow_nan=False)
PER_EXPERT = st.fixed_dictionaries(dict.fromkeys(EXPERTS, NUMBER))
SELECTORS = st.builds(
    Selector,
    layers=st.none() | st.tuples(st.integers(0, 3), st.integers(4, 6)),
    kinds=st.none() | st.lists(st.sampled_from(KINDS), min_size=1, unique=True).map(tuple),
    names=st.none() | st.sampled_from(["q_proj", r"\.weight$"]),
)
RULES = st.builds(
    Rule,
    method=st.sampled_from(["ties", "dare_ties"]),
    parameters=st.fixed_dictionaries(
        {}, optional={"coefficient": NUMBER | PER_EXPERT, "density": NUMBER, "lambda": NUMBER}
    ),
    where=SELECTORS,
)
RECIPES = st.builds(
    Recipe,
    experts=st.just(EXPERTS),
    rules=st.lists(RULES, min_size=1, max_size=4).map(tuple),
    base=st.just("zoo:base"),
    dtype=st.sampled_from([None, "bfloat16", "float32"]),
    seed=st.integers(0, 2**31),
)


@given(recipe=RECIPES)
def test_yaml_round_trip_is_the_identity(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("r") / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    again = load_recipe(file)
    assert again == recipe
    assert again.digest == recipe.digest


def test_the_digest_depends_on_content_only() -> None:
    one = Recipe(EXPERTS, (Rule("ties", {"density": 0.5, "lambda": 1.0}),), base="zoo:base")
    same = Recipe(dict(EXPERTS), (Rule("ties", {"lambda": 1.0, "density": 0.5}),), base="zoo:base")
    other_order = Recipe(dict(reversed(EXPERTS.items())), one.rules, base="zoo:base")
    assert one.digest == same.digest
    assert one.digest != other_order.digest  # summation order is part of the result
    assert len(one.digest) == 16


def test_the_first_matching_rule_applies() -> None:
    recipe = Recipe(
        EXPERTS,
        (
            Rule("ties", where=Selector(layers=(0, 2), kinds=("mlp",))),
            Rule("linear", where=Selector(names="q_proj")),
            Rule("task_arithmetic"),
        ),
        base="zoo:base",
    )
    assert recipe.rule_for("layers.1.mlp.up", TensorRole(1, "mlp")) == 0
    assert recipe.rule_for("layers.2.mlp.up", TensorRole(2, "mlp")) == 2
    assert recipe.rule_for("layers.0.attn.q_proj", TensorRole(0, "attention")) == 1


def test_a_tensor_without_a_rule_is_an_error() -> None:
    recipe = Recipe(EXPERTS, (Rule("linear", where=Selector(kinds=("mlp",))),))
    with pytest.raises(RecipeError, match="no rule selects tensor x"):
        recipe.rule_for("x", TensorRole(0, "norm"))


def test_one_method_for_everything_has_a_short_form() -> None:
    content = {"experts": EXPERTS, "method": "linear", "parameters": {"coefficient": 0.5}}
    recipe = recipe_from_data(content)
    assert recipe.rules == (Rule("linear", {"coefficient": 0.5}),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"experts": EXPERTS, "rules": [{"metod": "ties"}]},
            "metod: unknown key; did you mean 'method'?",
        ),
        ({"experts": EXPERTS, "method": "ties"}, "ties needs a base"),
        ({"experts": {"a": "a"}, "method": "slerp"}, "slerp needs a base"),
        ({"base": "b", "experts": {}, "method": "ties"}, "experts: expected at least one"),
        ({"base": "b", "experts": EXPERTS, "method": "tise"}, "did you mean 'ties'"),
        ({"base": "b", "experts": EXPERTS, "method": "ties", "dtype": "int8"}, "dtype"),
        (
            {"base": "b", "experts": EXPERTS, "method": "ties", "parameters": {"density": 3}},
            "density",
        ),
        ({"base": "b", "experts": EXPERTS}, "rules: this key is required"),
    ],
)
def test_faults_are_named(content: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipe_from_data(content)
    assert expected in str(error.value)


def test_relative_folders_start_at_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "models" / "a").mkdir(parents=True)
    file = tmp_path / "recipe.yaml"
    file.write_text("experts: {a: models/a, b: zoo:math, c: owner/name@main}\nmethod: linear\n")
    experts = load_recipe(file).experts
    assert experts == {"a": str(tmp_path / "models" / "a"), "b": "zoo:math", "c": "owner/name@main"}
