"""mergekit's ``passthrough`` files as paths and back, against mergekit itself where it is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from evomerge.errors import ConfigError, RecipeError
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.mergekit import from_mergekit, to_mergekit
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule, Selector
from tests.recipe.test_mergekit import (
    LAYERS,
    assert_same_model,
    imported,
    merged_by_mergekit,
    needs_mergekit,
    zoo,
)

__all__ = ["zoo"]

A = Rule("linear", {"coefficient": {"a": 1.0, "b": 0.0}, "normalize": True})
SOLAR = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources: [{model: a, layer_range: [1, 4]}]
dtype: float32
"""
FRANKEN = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: b, layer_range: [1, 3]}]
  - sources: [{model: a, layer_range: [2, 4]}]
dtype: float32
"""
# The blocks of block expansion: copies that do nothing at first, to be trained.
EXPANSION = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources:
      - model: a
        layer_range: [2, 3]
        parameters:
          scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.0}, {value: 1.0}]
  - sources: [{model: a, layer_range: [3, 4]}]
dtype: float32
"""
ODD_SCALES = """
merge_method: passthrough
slices:
  - sources:
      - model: a
        layer_range: [0, 2]
        parameters: {scale: [{filter: q_proj, value: [0.5, 1.0]}, {filter: embed, value: 3.0}]}
  - sources: [{model: b, layer_range: [2, 3]}]
    parameters: {scale: {filter: down_proj, value: -0.5}}
  - sources: [{model: a, layer_range: [1, 4]}]
parameters: {scale: [{filter: model.norm, value: 0.25}, {value: 1.0}]}
dtype: float32
"""
FOLDED = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 1]}]
  - sources:
      - model: b
        layer_range: [1, 3]
        parameters:
          scale: [{filter: o_proj, value: 0.5}, {filter: down_proj, value: 0.5}, {value: 1.0}]
  - sources: [{model: a, layer_range: [3, 4]}]
dtype: float32
"""
FILES = {
    "solar": SOLAR,
    "franken": FRANKEN,
    "expansion": EXPANSION,
    "odd scales": ODD_SCALES,
    "folded": FOLDED,
}


def hops(recipe: Recipe) -> list[str]:
    return [f"{hop.source}{hop.layer}" for hop in recipe.path]


def written(recipe: Recipe, out: Path) -> dict[str, torch.Tensor]:
    write_checkpoint(recipe, out)
    return load_file(out / "model.safetensors")


def recipe_of(zoo: Path, *path: Hop, rule: Rule = A, base: bool = True) -> Recipe:
    experts = {name: str(zoo / name) for name in "ab"}
    return Recipe(experts, (rule,), base=str(zoo / "base") if base else None, path=path)


def test_slices_are_hops(zoo: Path) -> None:
    assert hops(imported(SOLAR, zoo)) == ["a0", "a1", "a2", "a1", "a2", "a3"]
    franken = imported(FRANKEN, zoo)
    assert hops(franken) == ["a0", "a1", "b1", "b2", "a2", "a3"]
    assert franken.rules == (A,)
    assert all(hop.scale == 1.0 for hop in franken.path)


def test_equal_scales_of_all_that_writes_the_stream_are_input_scales(zoo: Path) -> None:
    recipe = imported(FOLDED, zoo)
    assert [hop.scale for hop in recipe.path] == [1.0, 2.0, 1.0, 0.5]
    assert recipe.rules == (A,)


def test_a_layer_scaled_to_nothing_is_a_merged_layer(zoo: Path, tmp_path: Path) -> None:
    recipe = imported(EXPANSION, zoo)
    assert hops(recipe) == ["a0", "a1", "a2", "merged2", "a3"]
    tensors = written(recipe, tmp_path / "out")
    assert not tensors["model.layers.3.self_attn.o_proj.weight"].any()
    assert not tensors["model.layers.3.mlp.down_proj.weight"].any()
    own = load_file(zoo / "a" / "model.safetensors")
    assert torch.equal(
        tensors["model.layers.3.mlp.up_proj.weight"], own["model.layers.2.mlp.up_proj.weight"]
    )


def test_the_ends_come_from_the_first_and_the_last_slice(zoo: Path, tmp_path: Path) -> None:
    text = FRANKEN.replace("{model: a, layer_range: [2, 4]}", "{model: b, layer_range: [3, 4]}")
    tensors = written(imported(text, zoo), tmp_path / "out")
    a, b = (load_file(zoo / name / "model.safetensors") for name in "ab")
    assert torch.equal(tensors["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    for name in ("model.norm.weight", "lm_head.weight"):
        assert torch.equal(tensors[name], b[name])


def test_a_base_among_the_slices_is_the_first_expert(zoo: Path) -> None:
    text = FRANKEN.replace("model: b", "model: base") + "base_model: base"
    recipe = imported(text, zoo)
    assert recipe.base is None
    assert list(recipe.experts) == ["base-2", "a"]  # "base" has a meaning of its own in paths
    assert hops(recipe)[1:3] == ["a1", "base-21"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("{model: b, layer_range: [1, 3]}", "{model: b}, {model: a}"), "expected one source"),
        (("[1, 3]", "[1, 5]"), "within the models' 4 layers"),
        (("dtype", "tokenizer_source: x\ndtype"), "expected one of the models"),
    ],
)
def test_what_a_path_cannot_say_is_refused(
    zoo: Path, change: tuple[str, str], expected: str
) -> None:
    with pytest.raises(RecipeError, match=expected):
        imported(FRANKEN.replace(*change), zoo)


def test_two_ways_to_scale_one_layer_are_refused(zoo: Path) -> None:
    text = EXPANSION.replace("[3, 4]", "[2, 3], parameters: {scale: 2.0}")
    with pytest.raises(RecipeError, match="expected layer 2 to be scaled in one way only"):
        imported(text, zoo)


def test_unknown_parameters_are_faults(zoo: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'scale'"):
        imported(EXPANSION.replace("scale:", "scales:"), zoo)


def test_export_writes_runs_of_layers_and_folded_scales(zoo: Path) -> None:
    recipe = recipe_of(zoo, Hop("a", 0), Hop("a", 1), Hop("b", 1, 2.0), Hop("b", 2), Hop("a", 3))
    content: dict[str, Any] = yaml.safe_load(to_mergekit(recipe))
    assert content["merge_method"] == "passthrough"
    first, second, third = (piece["sources"][0] for piece in content["slices"])
    assert (first["layer_range"], second["layer_range"], third["layer_range"]) == (
        [0, 2],
        [1, 3],
        [3, 4],
    )
    assert "parameters" not in first
    halves = [{"filter": part, "value": 0.5} for part in ("o_proj", "down_proj")]
    scale = second["parameters"]["scale"]
    assert sorted(map(str, scale[:-1])) == sorted(map(str, halves))
    assert scale[-1] == {"value": 1.0}


def test_merged_layers_and_foreign_ends_cannot_be_exported(zoo: Path) -> None:
    mix = Rule("linear", {"coefficient": {"a": 0.5, "b": 0.5}})
    merged = recipe_of(zoo, Hop("merged", 0), Hop("a", 3), rule=mix)
    with pytest.raises(RecipeError, match="copies every layer from one model"):
        to_mergekit(merged)
    with pytest.raises(RecipeError, match="mergekit takes the final norm and head from"):
        to_mergekit(recipe_of(zoo, Hop("a", 0), Hop("b", 3)))


def test_modified_rules_cannot_be_exported(zoo: Path) -> None:
    modified = replace(A, modifiers={"lines": {"beta": 0.5}}, where=Selector())
    with pytest.raises(RecipeError, match="copies every layer from one model"):
        to_mergekit(recipe_of(zoo, Hop("a", 0), Hop("a", 3), rule=modified))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_path_comes_back_from_mergekit(zoo: Path, data: st.DataObject) -> None:
    inner = data.draw(
        st.lists(
            st.builds(Hop, st.sampled_from("ab"), st.integers(0, LAYERS - 1), st.floats(0.7, 1.4)),
            min_size=1,
            max_size=8,
        )
    )
    recipe = recipe_of(zoo, Hop("a", 0), *inner, Hop("a", 3), base=False)
    back = from_mergekit(yaml.safe_load(to_mergekit(recipe)), beside=zoo)
    assert hops(back) == hops(recipe)
    scales = [hop.scale for hop in back.path]
    assert scales == pytest.approx([hop.scale for hop in recipe.path], rel=1e-9)
    assert back.rules[0].method == "linear"


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("name", FILES)
def test_an_imported_path_is_written_as_mergekit_writes_it(
    zoo: Path, tmp_path: Path, name: str
) -> None:
    theirs = merged_by_mergekit(FILES[name], zoo, tmp_path / "theirs")
    ours = written(imported(FILES[name], zoo), tmp_path / "ours")
    assert_same_model(ours, theirs, atol=1e-6)


@pytest.mark.slow
@needs_mergekit
def test_mergekit_writes_an_exported_path_as_it_is_written_here(zoo: Path, tmp_path: Path) -> None:
    path = (Hop("a", 0, 1.3), Hop("a", 1), Hop("base", 1, 0.8), Hop("b", 2, 1.5), Hop("a", 3))
    recipe = recipe_of(zoo, *path)
    theirs = merged_by_mergekit(to_mergekit(recipe), zoo, tmp_path / "theirs")
    assert_same_model(written(recipe, tmp_path / "ours"), theirs, atol=1e-6)
