"""Tokenizers and templates that mergekit files ask for: what a merge has anyway is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import ConfigError, RecipeError
from evomerge.models.zoo import zoo_path
from evomerge.recipe.mergekit import from_mergekit


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("math", "list"):
        shutil.copytree(zoo_path(name), tmp_path / name)
    return tmp_path


def imported(models: Path, **keys: Any) -> None:
    listed = [{"model": name, "parameters": {"weight": 1.0}} for name in ("math", "list")]
    from_mergekit({"merge_method": "linear", "models": listed, **keys}, beside=models)


def add_token(folder: Path, at: int | None = None) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    content["added_tokens"].append(
        {**content["added_tokens"][0], "content": "<new>", "id": at or len(vocabulary)}
    )
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "keys",
    [
        {"tokenizer_source": "union"},
        {"tokenizer_source": "list"},
        {"tokenizer_source": "base"},
        {"tokenizer": {"source": "union", "pad_to_multiple_of": 1}},
        {"chat_template": "auto"},
    ],
)
def test_what_a_merge_has_anyway_may_be_asked_for(models: Path, keys: dict[str, Any]) -> None:
    imported(models, **keys)


@pytest.mark.parametrize("source", ["union", "list"])
def test_a_larger_vocabulary_is_refused_by_name(models: Path, source: str) -> None:
    add_token(models / "list")
    with pytest.raises(RecipeError, match=r"got list with 1 more tokens, such as '<new>'"):
        imported(models, tokenizer_source=source)


def test_a_vocabulary_within_the_first_one_is_a_union_already(models: Path) -> None:
    add_token(models / "math")
    imported(models, tokenizer_source="union")


def test_the_template_that_most_have_is_taken_where_it_is_the_first_ones(models: Path) -> None:
    (models / "math" / "chat_template.jinja").write_text("one")
    imported(models, chat_template="auto")
    (models / "list" / "chat_template.jinja").write_text("two")
    with pytest.raises(RecipeError, match="expected one chat template, got another in list"):
        imported(models, chat_template="auto")


def test_rows_are_not_padded(models: Path) -> None:
    with pytest.raises(RecipeError, match=r"of: expected a divisor of the \d+ rows"):
        imported(models, tokenizer={"source": "base", "pad_to_multiple_of": 4096})


@pytest.mark.parametrize("key", ["random_seed", "write_model_card", "trust_remote_code"])
def test_options_of_the_command_line_are_called_so(models: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="an option of mergekit's command line"):
        imported(models, **{key: 1})
