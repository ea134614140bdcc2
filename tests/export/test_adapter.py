"""The merge of adapters as one adapter, loaded by PEFT beside the merge as a whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.errors import CheckpointError, EvomergeError, RecipeError
from evomerge.export.adapter import write_adapter
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.files import recipe_from_data
from evomerge.recipe.recipe import Recipe
from tests.tiny import save_tiny_llama

peft = pytest.importorskip("peft")

Make = Callable[..., Recipe]


@pytest.fixture
def recipe_of(tmp_path: Path) -> Make:
    """Make a recipe over two adapters of other ranks and modules on one base."""
    base = tmp_path / "base"
    save_tiny_llama(base, seed=0, dtype=torch.float32, n_layers=2)
    for seed, (name, options) in enumerate(
        {
            "one": {"target_modules": ["q_proj", "down_proj"], "r": 2, "lora_alpha": 6},
            "two": {"target_modules": ["q_proj", "v_proj"], "r": 3, "use_rslora": True},
            "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        }.items()
    ):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        config = peft.LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options)
        peft.get_peft_model(model, config).save_pretrained(tmp_path / name)

    def make(method: str, names: tuple[str, ...] = ("one", "two"), **parameters: Any) -> Recipe:
        experts = {n: {"adapter": str(tmp_path / n), "on": str(base)} for n in names}
        rule = {"method": method, "parameters": parameters}
        return recipe_from_data({"base": str(base), "experts": experts, "rules": [rule]})

    return make


def test_peft_loads_the_merge_of_adapters_as_one(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("task_arithmetic", coefficient={"one": 0.7, "two": -0.4}, **{"lambda": 0.9})
    assert write_adapter(recipe, tmp_path / "adapter") == 5
    write_checkpoint(recipe, tmp_path / "whole")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    ours = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    theirs = whole.state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "parameters", "expected"),
    [
        ("ties", {"coefficient": 1.0, "density": 0.5}, "merged in another way"),
        ("dare_linear", {"coefficient": 1.0, "density": 0.5}, "merged in another way"),
        ("linear", {"coefficient": 1.0}, "merged in another way"),
    ],
)
def test_what_has_no_low_rank_is_refused(
    recipe_of: Make, tmp_path: Path, method: str, parameters: dict[str, Any], expected: str
) -> None:
    with pytest.raises(RecipeError, match=expected):
        write_adapter(recipe_of(method, **parameters), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_whole_tensors_and_whole_models_are_refused(recipe_of: Make, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got whole tensors, such as lm_head"):
        write_adapter(recipe_of("task_arithmetic", ("saved",), coefficient=1.0), tmp_path / "a")
    base = str(tmp_path / "base")
    whole = recipe_from_data({"base": base, "experts": {"m": base}, "method": "task_arithmetic"})
    with pytest.raises(RecipeError, match="expected an adapter on"):
        write_adapter(whole, tmp_path / "a")


def test_a_folder_with_something_in_it_is_left_alone(recipe_of: Make, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "notes.txt").write_text("mine")
    with pytest.raises(EvomergeError, match="expected a new or empty folder"):
        write_adapter(recipe_of("task_arithmetic", coefficient=1.0), tmp_path / "adapter")
