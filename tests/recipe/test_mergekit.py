"""mergekit YAML in and out: tensor by tensor, against plans and against mergekit itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evomerge.errors import ConfigError, RecipeError
from evomerge.kernels.plan import TensorPlan
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.lowering import lower
from evomerge.merging.sources import Sources
from evomerge.methods.registry import method
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.models.zoo import zoo_path
from evomerge.recipe.files import load_recipe
from evomerge.recipe.mergekit import from_mergekit, to_mergekit
from evomerge.recipe.mergekit.keys import COUNTERPARTS, known_parameters
from evomerge.recipe.recipe import Recipe, Rule, Selector

LAYERS = 4
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 16,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
LAYER_SHAPES = {
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (8, 8),
    "self_attn.v_proj": (8, 8),
    "self_attn.o_proj": (8, 8),
    "mlp.gate_proj": (12, 8),
    "mlp.up_proj": (12, 8),
    "mlp.down_proj": (8, 12),
    "input_layernorm": (8,),
    "post_attention_layernorm": (8,),
}
SHAPES = {
    "model.embed_tokens.weight": (16, 8),
    "lm_head.weight": (16, 8),
    "model.norm.weight": (8,),
    **{
        f"model.layers.{layer}.{part}.weight": shape
        for layer in range(LAYERS)
        for part, shape in LAYER_SHAPES.items()
    },
}


def write_model(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama ``base`` and the fine-tuned ``a``, ``b`` and ``c``."""
    folder = tmp_path_factory.mktemp("zoo")
    draw = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    write_model(folder / "base", base)
    for name in "abc":
        # Large enough that slerp leaves its straight branch for some tensors and not for others.
        moved = {k: v + 0.04 * torch.randn(v.shape, generator=draw) for k, v in base.items()}
        write_model(folder / name, moved)
    return folder


@cache
def sources(base: str | None, *experts: tuple[str, str]) -> Sources:
    return Sources(base, dict(experts))


def plans(recipe: Recipe) -> dict[str, TensorPlan]:
    return dict(lower(recipe, sources(recipe.base, *recipe.experts.items())))


def imported(text: str, zoo: Path) -> Recipe:
    return from_mergekit(yaml.safe_load(text), beside=zoo)


def parameters_by_tensor(recipe: Recipe) -> dict[str, dict[str, Any]]:
    roles = sources(recipe.base, *recipe.experts.items()).architecture.roles
    return {
        name: dict(recipe.rules[recipe.rule_for(name, role)].parameters)
        for name, role in roles.items()
    }


# --- Import --------------------------------------------------------------------------------------

TIES = """
merge_method: ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.6, density: 0.5}}
  - {model: b, parameters: {weight: 0.4}}
parameters: {int8_mask: true, lambda: 0.9}
dtype: float32
out_dtype: bfloat16
tokenizer: {source: base}
"""


def test_plain_models_become_one_rule_with_mergekits_defaults(zoo: Path) -> None:
    recipe = imported(TIES, zoo)
    assert recipe == Recipe(
        experts={"a": str(zoo / "a"), "b": str(zoo / "b")},
        base=str(zoo / "base"),
        dtype="bfloat16",
        tokenizer=TokenizerChoice("base"),
        rules=(
            Rule(
                "ties",
                {
                    "coefficient": {"a": 0.6, "b": 0.4},
                    "density": {"a": 0.5, "b": 1.0},
                    "lambda": 0.9,
                },
            ),
        ),
    )
    assert method("ties").parameters()["normalize"].default is True


def test_recipe_files_of_mergekit_load_by_their_keys(zoo: Path) -> None:
    (zoo / "ties.yaml").write_text(TIES)
    assert load_recipe(zoo / "ties.yaml") == imported(TIES, zoo)


def test_settings_of_a_source_precede_those_of_its_slice_and_the_file(zoo: Path) -> None:
    recipe = imported(
        """
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: a, layer_range: [0, 2], parameters: {weight: [{filter: mlp, value: 0.1}]}}
      - {model: base, layer_range: [0, 2]}
    parameters: {weight: [{filter: self_attn, value: 0.2}], lambda: 2.0}
  - sources:
      - {model: a, layer_range: [2, 4]}
      - {model: base, layer_range: [2, 4]}
parameters: {weight: 0.3, lambda: 3.0}
""",
        zoo,
    )
    found = parameters_by_tensor(recipe)
    expected = {
        "model.embed_tokens.weight": (0.3, 2.0),
        "model.layers.1.mlp.up_proj.weight": (0.1, 2.0),
        "model.layers.1.self_attn.q_proj.weight": (0.2, 2.0),
        "model.layers.1.input_layernorm.weight": (0.3, 2.0),
        "model.layers.2.mlp.up_proj.weight": (0.3, 3.0),
        "model.norm.weight": (0.3, 3.0),
        "lm_head.weight": (0.3, 3.0),
    }
    got = {name: (found[name]["coefficient"]["a"], found[name]["lambda"]) for name in expected}
    assert got == expected


def test_a_gradient_runs_over_the_layers_and_starts_again_outside_them(zoo: Path) -> None:
    recipe = imported(
        """
merge_method: slerp
base_model: base
models: [{model: base}, {model: a}]
parameters:
  t:
    - {filter: mlp, value: [0, 0.25, 1]}
    - {value: [0, 0.9]}
""",
        zoo,
    )
    found = parameters_by_tensor(recipe)

    def t(name: str) -> float:
        return found[name]["t"]

    assert [t(f"model.layers.{i}.self_attn.q_proj.weight") for i in range(LAYERS)] == pytest.approx(
        [0.0, 0.3, 0.6, 0.9]
    )
    assert [t(f"model.layers.{i}.mlp.up_proj.weight") for i in range(LAYERS)] == pytest.approx(
        [0.0, 1 / 6, 0.5, 1.0]
    )
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert t(name) == 0.0
    assert list(recipe.experts) == ["a"]


def test_a_slice_of_one_layer_takes_the_end_of_a_gradient(zoo: Path) -> None:
    one = "sources: [{model: a, layer_range: [%d, %d]}, {model: base, layer_range: [%d, %d]}]"
    slices = "".join(f"  - {one % (i, i + 1, i, i + 1)}\n" for i in range(LAYERS))
    recipe = imported(
        f"merge_method: task_arithmetic\nbase_model: base\nslices:\n{slices}"
        "parameters: {weight: [0.2, 0.8]}\n",
        zoo,
    )
    found = {name: p["coefficient"]["a"] for name, p in parameters_by_tensor(recipe).items()}
    outside = {name for name in found if "layers" not in name}
    assert {found[name] for name in outside} == {0.2}
    assert {found[name] for name in found.keys() - outside} == {0.8}
    assert len(recipe.rules) == 2


def test_a_model_that_a_slice_leaves_out_has_coefficient_zero_there(zoo: Path) -> None:
    recipe = imported(
        """
merge_method: linear
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: a, layer_range: [2, 4]}, {model: b, layer_range: [2, 4]}]
parameters: {weight: 0.5}
""",
        zoo,
    )
    assert [rule.parameters["coefficient"] for rule in recipe.rules] == [
        {"a": 0.5, "b": 0.0},
        {"a": 0.5, "b": 0.5},
    ]
    assert [rule.where.layers for rule in recipe.rules] == [(0, 2), (2, 4)]


def test_equal_settings_share_a_rule_however_they_are_written(zoo: Path) -> None:
    recipe = imported(
        """
merge_method: linear
slices:
  - sources:
      - model: a
        layer_range: [0, 1]
        parameters:
          weight: [{filter: k_proj, value: 2}, {filter: mlp, value: 1}, {filter: v_proj, value: 2}]
  - sources: [{model: a, layer_range: [1, 4], parameters: {weight: [1, 1, 1]}}]
parameters: {weight: 1}
""",
        zoo,
    )
    assert recipe.rules == (
        Rule("linear", {"coefficient": {"a": 2.0}}, Selector((0, 1), names="k_proj|v_proj")),
        Rule("linear", {"coefficient": {"a": 1.0}}),
    )


def test_experts_with_the_same_last_component_get_different_names(zoo: Path) -> None:
    shutil.copytree(zoo / "b", zoo / "other" / "a", dirs_exist_ok=True)
    recipe = imported(
        "{merge_method: linear, parameters: {weight: 1e-1}, models: [{model: a}, "
        "{model: other/a}, {model: owner/a@main}, {model: {model: {path: c}}}]}",
        zoo,
    )
    assert recipe.experts == {
        "a": str(zoo / "a"),
        "a-2": str(zoo / "other" / "a"),
        "a-3": "owner/a@main",
        "c": str(zoo / "c"),
    }


LINEAR = {"merge_method": "linear", "models": [{"model": "a"}], "parameters": {"weight": 1}}
TASK = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [{"model": "a", "parameters": {"weight": 1}}],
}


def sliced(*ranges: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"sources": [{"model": "a", "layer_range": list(r)}]} for r in ranges]


def of(merge_method: str, **parameters: Any) -> dict[str, Any]:
    """The base, ``a`` and ``b``."""
    models: list[dict[str, Any]] = [{"model": m} for m in "ab"]
    if "weight" in known_parameters(merge_method, of_one_model=True):
        models = [{**model, "parameters": {"weight": 1}} for model in models]
    head = {"merge_method": merge_method, "base_model": "base", "models": models}
    return {**head, "parameters": parameters}


@pytest.mark.parametrize(
    ("content", "parameters"),
    [
        (of("ties", rescale=True), {"rescale": "l1"}),
        (of("breadcrumbs", rescale=True), {"rescale": "l1"}),
        (of("breadcrumbs_ties", rescale=False), {}),
        (of("nuslerp", nuslerp_flatten=False), {"row_wise": True}),
        (of("nuslerp", nuslerp_flatten=False, nuslerp_row_wise=True), {"column_wise": True}),
        (of("nuslerp", nuslerp_row_wise=True), {}),  # a flattened tensor has no rows
        (of("multislerp", normalize_weights=False, eps=0.001), {"normalize": False, "eps": 0.001}),
        (of("karcher", max_iter=2), {"max_iter": 2, "tol": 1e-5}),
        (of("karcher"), {"max_iter": 10, "tol": 1e-5}),  # of mergekit's defaults
    ],
)
def test_parameters_mean_what_mergekit_does_by_them(
    zoo: Path, content: dict[str, Any], parameters: dict[str, Any]
) -> None:
    (rule,) = imported(yaml.safe_dump(content), zoo).rules
    mixing = ("coefficient", "density", "gamma")
    assert {k: v for k, v in rule.parameters.items() if k not in mixing} == parameters


def test_a_number_of_steps_is_exported_whole(zoo: Path) -> None:
    recipe = recipe_of(zoo, Rule("karcher", {"max_iter": 3.0}))
    assert "{max_iter: 3, tol:" in to_mergekit(recipe)


def test_columns_that_turn_are_exported_as_not_flattened(zoo: Path) -> None:
    recipe = recipe_of(zoo, Rule("nuslerp", {"column_wise": True}))
    parameters = yaml.safe_load(to_mergekit(recipe))["parameters"]
    assert parameters == {"nuslerp_flatten": False, "nuslerp_row_wise": True}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"merge_method": "passthrough", "slices": []}, "cannot be imported yet"),
        ({"merge_method": "linear", "modules": {"text": {}}}, "modules"),
        ({**LINEAR, "models": [{"model": "a+lora"}]}, "adapter"),
        ({**LINEAR, "models": [{"model": "a"}, {"model": "a"}]}, "each model once"),
        ({**LINEAR, "parameters": {}}, "expected a value of weight"),
        ({**LINEAR, "parameters": {"weight": [{"filter": "mlp", "value": 1}]}}, "of weight"),
        ({**LINEAR, "dtype": "float64"}, "float64"),
        ({**LINEAR, "tokenizer": {"source": "x"}}, "source: expected one of the models"),
        ({**LINEAR, "chat_template": "chatml"}, "expected auto"),
        ({**LINEAR, "models": [], "slices": sliced((0, 2), (1, 4))}, "repeated"),
        ({**LINEAR, "models": [], "slices": sliced((2, 4), (0, 2))}, "reordered"),
        ({**LINEAR, "models": [], "slices": sliced((0, 3))}, "all 4 layers"),
        ({**LINEAR, "models": [{"model": "a", "layer_range": [0, 2]}]}, "all 4 layers"),
        ({**TASK, "base_model": None}, "base_model"),
        ({**TASK, "models": [], "slices": sliced((0, 4))}, "among the sources"),
        ({**TASK, "models": [{"model": "base"}]}, "besides the base"),
        ({**TASK, "parameters": {"lambda": 99}}, "99"),
        (of("karcher", max_iter=0), "max_iter: expected a number in"),
        (of("slerp", t=0.5), "one model besides the base, got 2"),
        (of("nearswap", t=0.5), "one model besides the base, got 2"),
        (of("arcee_fusion"), "one model besides the base, got 2"),
        ({**of("nuslerp"), "models": TASK["models"]}, "2 models besides the base, got 1"),
        ({**of("model_stock"), "models": [{"model": "a"}]}, "at least 2 models besides the base"),
        (
            {
                "merge_method": "sce",
                "base_model": "a",
                "slices": [
                    *sliced((0, 2)),
                    {"sources": [{"model": m, "layer_range": [2, 4]} for m in "ab"]},
                ],
            },
            "all models in all slices, as sce has no coefficient",
        ),
    ],
)
def test_what_a_recipe_cannot_say_is_refused(
    zoo: Path, content: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        from_mergekit(content, beside=zoo)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({**LINEAR, "base_mode": "x"}, r"base_mode: unknown key; did you mean 'base_model'\?"),
        (
            {**LINEAR, "parameters": {"weight": 1, "normalise": True}},
            r"parameters\.normalise: unknown key; did you mean 'normalize'\?",
        ),
        ({**LINEAR, "parameters": {"lambda": 1}}, r"parameters\.lambda: unknown key"),
        (
            {**LINEAR, "models": [{"model": "a", "parameters": {"normalize": True}}]},
            r"models\[0\]\.parameters\.normalize: unknown key",
        ),
        (
            {**LINEAR, "parameters": {"weight": "half"}},
            "expected a number, true or false, got 'half'$",
        ),
        (
            {**LINEAR, "parameters": {"weight": [{"filtre": "mlp", "value": 1}]}},
            r"did you mean 'filter'\?",
        ),
    ],
)
def test_what_mergekit_would_ignore_silently_is_a_fault(
    zoo: Path, content: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        from_mergekit(content, beside=zoo)


# --- Export --------------------------------------------------------------------------------------


def recipe_of(zoo: Path, *rules: Rule, experts: str = "ab", base: str | None = "base") -> Recipe:
    return Recipe(
        experts={name: str(zoo / name) for name in experts},
        rules=rules,
        base=None if base is None else str(zoo / base),
    )


def test_one_rule_is_exported_as_whole_models(zoo: Path) -> None:
    recipe = recipe_of(zoo, Rule("ties", {"coefficient": {"a": 0.3, "b": 0.7}, "density": 0.2}))
    assert yaml.safe_load(to_mergekit(recipe)) == {
        "merge_method": "ties",
        "base_model": str(zoo / "base"),
        "models": [
            {"model": str(zoo / "a"), "parameters": {"weight": 0.3, "density": 0.2}},
            {"model": str(zoo / "b"), "parameters": {"weight": 0.7, "density": 0.2}},
            {"model": str(zoo / "base")},
        ],
        "parameters": {"lambda": 1.0, "normalize": True, "rescale": False},
        "dtype": "float32",
        "out_dtype": "float32",
    }


def test_rules_by_layer_and_kind_are_exported_as_slices_with_filters(zoo: Path) -> None:
    recipe = recipe_of(
        zoo,
        Rule(
            "task_arithmetic", {"coefficient": 0.1}, Selector(layers=(0, 3), kinds=("attention",))
        ),
        Rule("task_arithmetic", {"coefficient": 0.2}, Selector(kinds=("head", "embedding"))),
        Rule("task_arithmetic", {"coefficient": 0.3}),
        experts="a",
    )
    content = yaml.safe_load(to_mergekit(recipe))
    first, last = (piece["sources"][0] for piece in content["slices"])
    assert (first["layer_range"], last["layer_range"]) == ([0, 3], [3, 4])
    assert first["parameters"]["weight"] == [
        {"filter": "embed_tokens", "value": 0.2},
        {"filter": "self_attn", "value": 0.1},
        {"value": 0.3},
    ]
    assert last["parameters"]["weight"] == [{"filter": "lm_head", "value": 0.2}, {"value": 0.3}]
    assert all(
        piece["sources"][-1]["model"] == content["base_model"] for piece in content["slices"]
    )


def test_models_that_mergekit_would_misread_are_exported_in_parts(zoo: Path) -> None:
    shutil.copytree(zoo / "a", zoo / "a+b@c", dirs_exist_ok=True)
    recipe = Recipe(experts={"a+b": str(zoo / "a+b@c")}, rules=(Rule("linear"),))
    text = to_mergekit(recipe)
    assert yaml.safe_load(text)["base_model"] == {"model": {"path": str(zoo / "a+b@c")}}
    assert imported(text, zoo).experts == {"a+b": str(zoo / "a+b@c")}


def test_models_of_the_zoo_are_exported_as_folders() -> None:
    recipe = Recipe(experts={"math": "zoo:math"}, base="zoo:base", rules=(Rule("dare_ties"),))
    content = yaml.safe_load(to_mergekit(recipe))
    assert content["base_model"] == str(zoo_path("base"))
    assert content["models"][0]["model"] == str(zoo_path("math"))


def test_coefficients_that_cancel_are_not_normalized_by_mergekit(zoo: Path) -> None:
    recipe = recipe_of(zoo, Rule("linear", {"coefficient": {"a": 0.5, "b": -0.5}}))
    assert yaml.safe_load(to_mergekit(recipe))["parameters"] == {"normalize": False}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ties", {"scope": "global"}),
        ("ties", {"vote": "count"}),
        ("dare_ties", {"zero_sign": "none"}),
        ("dare_linear", {"rescale": "l2"}),
        ("breadcrumbs", {"scope": "row"}),
        ("sce", {"lambda": 0.5}),
        ("sce", {"coefficient": {"a": 1.0, "b": 2.0}}),
        ("sce", {"sce_mode": "weights_only"}),
        ("ram", {"coefficient": 0.5}),
        ("model_stock", {"average": "angle"}),
        ("multislerp", {"lambda": 0.5}),
        ("karcher", {"coefficient": {"a": 1.0, "b": 2.0}}),
    ],
)
def test_what_mergekit_has_no_parameter_for_cannot_be_exported(
    zoo: Path, name: str, values: dict[str, Any]
) -> None:
    (key,) = values
    with pytest.raises(RecipeError, match=f"mergekit has no parameter '{key}' for {name}"):
        to_mergekit(recipe_of(zoo, Rule(name, values)))


def test_ranges_of_probabilities_that_mergekit_refuses_cannot_be_exported(zoo: Path) -> None:
    with pytest.raises(RecipeError, match=r"got density 0\.9 and epsilon 0\.15"):
        to_mergekit(recipe_of(zoo, Rule("della", {"density": {"a": 0.5, "b": 0.9}})))
    to_mergekit(recipe_of(zoo, Rule("della", {"density": {"a": 0.5, "b": 1.0}})))


def test_methods_that_mergekit_lacks_cannot_be_exported(zoo: Path) -> None:
    with pytest.raises(RecipeError, match="mergekit has no method 'magmax', only linear"):
        to_mergekit(recipe_of(zoo, Rule("magmax")))


def test_modifiers_cannot_be_exported(zoo: Path) -> None:
    rule = Rule("task_arithmetic", modifiers={"lines": {}})
    with pytest.raises(RecipeError, match="mergekit has no modifiers"):
        to_mergekit(recipe_of(zoo, rule))


def test_recipes_that_mix_methods_or_repeat_models_cannot_be_exported(zoo: Path) -> None:
    mixed = recipe_of(zoo, Rule("ties", where=Selector(kinds=("mlp",))), Rule("dare_ties"))
    with pytest.raises(RecipeError, match="one method per file, got a recipe of dare_ties, ties"):
        to_mergekit(mixed)
    twice = replace(recipe_of(zoo, Rule("ties")), experts={x: str(zoo / "a") for x in "xy"})
    with pytest.raises(RecipeError, match="each model once"):
        to_mergekit(twice)


# --- There and back ------------------------------------------------------------------------------

numbers = st.sampled_from([-0.5, 0.0, 0.25, 1 / 3, 1.0])
selectors = st.builds(
    Selector,
    layers=st.none()
    | st.integers(0, 3).flatmap(
        lambda start: st.integers(start + 1, 4).map(lambda stop: (start, stop))
    ),
    kinds=st.none()
    | st.lists(st.sampled_from(("attention", "mlp", "norm", "embedding", "head")), min_size=1).map(
        tuple
    ),
    names=st.none() | st.sampled_from(["q_proj", "norm", r"layers\.[02]\.", "down_proj|lm_head"]),
)


@st.composite
def recipes(draw: st.DrawFn) -> tuple[str, str | None, tuple[Rule, ...]]:
    """Draw experts, base and rules of one method, of what mergekit can do."""
    counterpart = COUNTERPARTS[draw(st.sampled_from(list(COUNTERPARTS)))]
    name, (fewest, most) = counterpart.ours, counterpart.n_experts
    experts = draw(
        st.sampled_from([e for e in ("a", "ab", "cab") if fewest <= len(e) <= (most or 3)])
    )
    has_base = counterpart.base == "read" or draw(st.booleans())
    declared = method(name).parameters()

    def value(key: str) -> Any:
        if isinstance(declared[key].default, bool):
            return draw(st.booleans())
        if key == "rescale":
            return draw(st.sampled_from([counterpart.keys[key].ours(x) for x in (True, False)]))
        if key == "max_iter":
            return draw(st.integers(1, 50))
        if key in ("eps", "tol"):
            return draw(st.sampled_from([0.0, 1e-3]))
        number = numbers if key in ("coefficient", "lambda") else numbers.map(abs)
        number = st.sampled_from([0.0, 0.1]) if key in ("epsilon", "gamma") else number
        if declared[key].per_expert and draw(st.booleans()):
            return {expert: draw(number) for expert in experts}
        return draw(number)

    def rule(where: Selector) -> Rule:
        keys = draw(st.sets(st.sampled_from(list(counterpart.keys)))) if counterpart.keys else set()
        keys -= {"row_wise"} if "column_wise" in keys else set()
        window = {"epsilon": 0.1} if "epsilon" in declared else {}  # mergekit refuses wider ones
        return Rule(name, {**window, **{key: value(key) for key in sorted(keys)}}, where)

    places = [*draw(st.lists(selectors, max_size=4)), Selector()]
    return experts, "base" if has_base else None, tuple(map(rule, places))


@given(recipes())
@settings(max_examples=80, deadline=None)
def test_every_tensor_has_the_same_plan_after_a_round_trip(
    zoo: Path, drawn: tuple[str, str | None, tuple[Rule, ...]]
) -> None:
    experts, base, rules = drawn
    recipe = recipe_of(zoo, *rules, experts=experts, base=base)
    back, there = plans(imported(to_mergekit(recipe), zoo)), plans(recipe)
    assert back.keys() == there.keys()
    for tensor, plan in back.items():
        # A base that is not read makes other matrices of inner products, equal but for rounding.
        assert plan.coefficients == pytest.approx(there[tensor].coefficients, abs=1e-9)
        assert replace(plan, coefficients=there[tensor].coefficients) == there[tensor]


def test_slerp_of_two_experts_comes_back_as_base_and_expert(zoo: Path, tmp_path: Path) -> None:
    recipe = recipe_of(zoo, Rule("slerp", {"t": 0.3}), experts="ab")
    back = imported(to_mergekit(recipe), zoo)
    assert (back.base, list(back.experts)) == (str(zoo / "a"), ["b"])
    assert_same_model(merged(recipe, tmp_path / "1"), merged(back, tmp_path / "2"), atol=0.0)


# --- Against mergekit ----------------------------------------------------------------------------


def merged(recipe: Recipe, out: Path) -> dict[str, torch.Tensor]:
    write_checkpoint(recipe, out)
    return load_file(out / "model.safetensors")


def assert_same_model(
    ours: dict[str, torch.Tensor],
    theirs: dict[str, torch.Tensor],
    atol: float,
    *,
    strangers: int = 0,
) -> None:
    """Compare models; ``strangers`` elements of each tensor may differ."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        n_far = int(((tensor - theirs[name]).abs() > atol).sum())
        assert n_far <= strangers, f"{name}: {n_far} elements differ"


def merged_by_mergekit(text: str, zoo: Path, out: Path) -> dict[str, torch.Tensor]:
    (out.parent / "merge.yaml").write_text(text)
    options = ["--quiet", "--no-write-model-card", "--no-copy-tokenizer"]
    subprocess.run(
        ["mergekit-yaml", str(out.parent / "merge.yaml"), str(out), *options],
        cwd=zoo,
        check=True,
        capture_output=True,
    )
    return load_file(out / "model.safetensors")


needs_mergekit = pytest.mark.skipif(
    shutil.which("mergekit-yaml") is None, reason="mergekit-yaml is not on the path"
)
LAYERWISE: Mapping[str, Mapping[str, Any]] = {
    "linear": {"coefficient": {"a": 0.3, "b": 0.9}},
    "task_arithmetic": {"coefficient": {"a": 0.3, "b": -0.2}, "lambda": 1.5},
    "ties": {"coefficient": {"a": 0.3, "b": 0.9}, "density": {"a": 0.5, "b": 1.0}},
    "slerp": {"t": 0.35},
    "breadcrumbs": {"coefficient": {"a": 0.3, "b": 0.9}, "density": 0.5, "gamma": 0.1},
    "breadcrumbs_ties": {"coefficient": {"a": 0.3, "b": 0.9}, "density": 0.5, "gamma": 0.1},
    "ram": {"tolerance": 0.02},
    "ramplus": {"tolerance": 0.02, "boost": 0.5, "boost_cap": 2.0},
    "model_stock": {"filter_wise": True},
    "nuslerp": {"coefficient": {"a": 0.3, "b": 0.9}, "row_wise": True},
    "multislerp": {"coefficient": {"a": 0.3, "b": 0.9}, "normalize": False, "eps": 0.01},
    "nearswap": {"limit": 0.03},
}


def experts_of(merge_method: str) -> str:
    return "a" if COUNTERPARTS[merge_method].n_experts[1] == 1 else "ab"


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("name", LAYERWISE)
def test_mergekit_merges_an_exported_recipe_to_the_same_model(
    zoo: Path, tmp_path: Path, name: str
) -> None:
    recipe = recipe_of(
        zoo,
        Rule(name, LAYERWISE[name], Selector(layers=(1, 3))),
        Rule(name, LAYERWISE[name], Selector(kinds=("embedding", "norm"))),
        Rule(name, {"density": 1.0} if name.startswith("breadcrumbs") else {}),
        experts=experts_of("ramplus_tl" if name == "ramplus" else name),
    )
    theirs = merged_by_mergekit(to_mergekit(recipe), zoo, tmp_path / "theirs")
    ours = merged(recipe, tmp_path / "ours")
    assert_same_model(ours, theirs, atol=2e-6)


GRADIENTS_AND_FILTERS = """
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: a, layer_range: [0, 1], parameters: {weight: [0.2, 0.9]}}
      - {model: b, layer_range: [0, 1], parameters: {weight: [{filter: mlp, value: 0.1}]}}
      - {model: base, layer_range: [0, 1]}
    parameters: {lambda: [0.5, 1.5]}
  - sources:
      - {model: b, layer_range: [1, 4]}
      - {model: c, layer_range: [1, 4], parameters: {weight: {filter: layers.2., value: -1}}}
      - {model: base, layer_range: [1, 4], parameters: {weight: 17}}
    parameters: {normalize: [{filter: q_proj, value: true}, {filter: norm, value: [true, false]}]}
parameters: {weight: [{filter: lm_head, value: 0.05}, {filter: "*", value: [0.1, 0.2, 0.7]}]}
dtype: float32
"""
LINEAR_WITH_BASE = """
merge_method: linear
base_model: base
models: [{model: a, parameters: {weight: 0.5}}, {model: b}]
parameters: {weight: [0.2, 0.4]}
dtype: float32
"""


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("text", [GRADIENTS_AND_FILTERS, LINEAR_WITH_BASE])
def test_an_imported_file_merges_to_the_model_that_mergekit_makes_of_it(
    zoo: Path, tmp_path: Path, text: str
) -> None:
    theirs = merged_by_mergekit(text, zoo, tmp_path / "theirs")
    assert_same_model(merged(imported(text, zoo), tmp_path / "ours"), theirs, atol=2e-6)


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize(
    "name",
    [n for n in COUNTERPARTS if not n.startswith(("dare", "della"))],  # which draw masks
)
def test_files_that_say_little_mean_what_mergekit_takes_them_for(
    zoo: Path, tmp_path: Path, name: str
) -> None:
    content = of(name, **({"t": 0.3} if name in ("slerp", "nearswap") else {}))
    content["models"] = content["models"][: len(experts_of(name))]
    if name == "linear":
        del content["base_model"]
    text = yaml.safe_dump({**content, "dtype": "float32"})
    theirs = merged_by_mergekit(text, zoo, tmp_path / "theirs")
    ours = merged(imported(text, zoo), tmp_path / "ours")
    assert_same_model(ours, theirs, atol=2e-6)
