"""Cards of models that are made of others without a search: lineage, licences, what was done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from evomerge.api.masking import mask, merge_twins, restore
from evomerge.api.merging import merge
from evomerge.api.shrinking import fewer_experts
from evomerge.api.transplanting import transplant
from evomerge.fingerprint import fingerprint
from evomerge.models.zoo import zoo_path
from evomerge.recipe.recipe import Recipe, Rule
from tests.architectures import tiny_model


def read(folder: Path) -> tuple[dict[str, object], str]:
    _, header, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), body


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A local model under a licence of its own."""
    folder = tmp_path / "tuned"
    shutil.copytree(zoo_path("math"), folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tuned\n")
    return folder


def test_the_card_of_a_transplant_names_both_models(model: Path, tmp_path: Path) -> None:
    written = transplant("zoo:base", str(model), tmp_path / "out", k=8)
    header, body = read(tmp_path / "out")
    assert header["tags"] == ["merge", "evomerge"]
    assert "license" not in header  # one of two
    assert "`tuned` with the tokens of `zoo:base`" in body
    assert f"{written.match.n_rows} rows" in body
    assert f"| `tuned` | `{fingerprint(model / 'model.safetensors')}` | mit |" in body
    assert "1 of its 2 models declare no licence; the others mit." in body
    assert "k: 8" in body
    assert str(tmp_path) not in body


def test_the_card_of_masks_says_how_experts_come_back(model: Path, tmp_path: Path) -> None:
    recipe = Recipe({"math": str(model)}, (Rule("task_arithmetic"),), base="zoo:base")
    mask(recipe, tmp_path / "out")
    header, body = read(tmp_path / "out")
    assert header["base_model_relation"] == "merge"
    assert "Beside the merge are masks of math; `evomerge restore DIR EXPERT" in body
    assert "| mit |" in body
    assert recipe.digest in body
    assert str(tmp_path) not in body


def test_merges_and_what_is_restored_of_them_have_cards(model: Path, tmp_path: Path) -> None:
    recipe = Recipe({"math": str(model)}, (Rule("task_arithmetic"),), base="zoo:base")
    merge(recipe, tmp_path / "plain")
    header, body = read(tmp_path / "plain")
    assert header["base_model_relation"] == "merge"
    assert f"by task_arithmetic; no training took place. Recipe `{recipe.digest}`" in body
    assert "## Scores" not in body
    assert str(tmp_path) not in body
    mask(recipe, tmp_path / "kept")
    restore(tmp_path / "kept", "math", tmp_path / "back")
    header, body = read(tmp_path / "back")
    assert header["tags"] == ["merge", "evomerge"]
    assert "the merge `kept` and what is kept beside it make of\nmath; no training" in body
    assert "| `kept` |" in body
    assert "| `zoo:base` |" in body
    assert str(tmp_path) not in body


def test_the_card_of_twins_says_how_experts_come_back(model: Path, tmp_path: Path) -> None:
    recipe = Recipe({"math": str(model)}, (Rule("task_arithmetic"),), base="zoo:base")
    merge_twins(recipe, tmp_path / "out")
    restore(tmp_path / "out", {"math": 0.5}, tmp_path / "half")
    assert "make of\nmath (times 0.5); no" in read(tmp_path / "half")[1]
    _, body = read(tmp_path / "out")
    assert "Beside the merge are low-rank differences of math; `evomerge restore DIR" in body
    assert "| mit |" in body


def test_the_card_of_fewer_experts_says_how_many(tmp_path: Path) -> None:
    tiny_model("mixtral", tmp_path / "moe", 1, torch.float32, num_local_experts=3)
    (tmp_path / "prompts.txt").write_text("w1 w2 w3\nw4 w5 w6\n")
    prompts = tmp_path / "prompts.txt"
    fewer_experts(str(tmp_path / "moe"), tmp_path / "out", experts=2, prompts=prompts)
    header, body = read(tmp_path / "out")
    assert header["tags"] == ["merge", "moe", "evomerge"]
    assert "`moe` with 2 experts in each of 3 layers" in body
    assert "prompts: prompts.txt" in body
    assert "AutoModelForCausalLM.from_pretrained(" in body
    assert str(tmp_path) not in body
