"""Tokenizers and templates that mergekit files ask for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.errors import ConfigError, RecipeError
from evomerge.models.tokenizer_choice import TokenizerChoice, TokenOf, TokenRow
from evomerge.models.zoo import zoo_path
from evomerge.recipe.mergekit import from_mergekit, to_mergekit
from evomerge.recipe.recipe import Recipe


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("math", "list"):
        shutil.copytree(zoo_path(name), tmp_path / name)
    return tmp_path


def imported(models: Path, **keys: Any) -> Recipe:
    listed = [{"model": name, "parameters": {"weight": 1.0}} for name in ("math", "list")]
    return from_mergekit({"merge_method": "linear", "models": listed, **keys}, beside=models)


@pytest.mark.parametrize(
    ("keys", "choice"),
    [
        ({}, None),
        ({"tokenizer_source": "union"}, TokenizerChoice("union")),
        ({"tokenizer_source": "list"}, TokenizerChoice("model:list")),
        ({"tokenizer_source": "base"}, TokenizerChoice("base")),
        ({"tokenizer_source": "base", "base_model": "list"}, TokenizerChoice("base")),
        ({"tokenizer": {"pad_to_multiple_of": 64}}, TokenizerChoice("union", {}, 64)),
        ({"chat_template": "auto"}, TokenizerChoice("base", chat_template="auto")),
    ],
)
def test_tokenizer_keys_are_a_recipes(
    models: Path, keys: dict[str, Any], choice: TokenizerChoice | None
) -> None:
    assert imported(models, **keys).tokenizer == choice


def test_rows_of_single_tokens_come_through_both_ways(models: Path) -> None:
    token = {"kind": "model_token", "model": "list", "token": "<eos>"}
    rows = {"<a>": {"source": "math", "force": True}, "<b>": {"source": {"kind": "zero"}}}
    keys = {"source": "base", "tokens": {**rows, "<c>": {"source": token}}}
    recipe = imported(models, tokenizer=keys)
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.tokens == {
        "<a>": TokenRow("model:math", force=True),
        "<b>": TokenRow("zero"),
        "<c>": TokenRow(TokenOf("list", token="<eos>")),
    }
    text = to_mergekit(recipe, beside=models)
    again = from_mergekit(yaml.safe_load(text), beside=models)
    assert again.tokenizer == recipe.tokenizer


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"tokenizer_source": "code"}, r"tokenizer_source: expected one of the models math, list"),
        ({"chat_template": "chatml"}, "chat_template: expected auto"),
        ({"tokenizer": {"tokens": {"x": {"source": 3}}}}, r"tokens\.x\.source: expected a model"),
    ],
)
def test_what_a_recipe_cannot_have_is_refused(
    models: Path, keys: dict[str, Any], fault: str
) -> None:
    with pytest.raises(RecipeError, match=fault):
        imported(models, **keys)


@pytest.mark.parametrize(
    "choice",
    [TokenizerChoice(chat_template="list"), TokenizerChoice(tokens={"x": TokenRow("pieces")})],
)
def test_what_mergekit_cannot_do_is_refused(models: Path, choice: TokenizerChoice) -> None:
    with pytest.raises(RecipeError, match="mergekit"):
        to_mergekit(replace(imported(models), tokenizer=choice))


@pytest.mark.parametrize("key", ["random_seed", "write_model_card", "trust_remote_code"])
def test_options_of_the_command_line_are_called_so(models: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="an option of mergekit's command line"):
        imported(models, **{key: 1})
