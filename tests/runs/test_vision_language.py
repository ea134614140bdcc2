"""Models of vision and language: merged as they are; a search says what it needs instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    Mistral3Config,
    PretrainedConfig,
    Qwen2_5_VLConfig,
)

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import CheckpointError, ConfigError
from evomerge.merging.candidate import load_model
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.loaded import Loaded
from tests.architectures import tiny_config
from tests.tiny import save_tokenizer


def mistral3() -> PretrainedConfig:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "head_dim": 8, "image_size": 28, "patch_size": 14}
    return Mistral3Config(
        text_config=tiny_config("mistral").to_dict(),
        vision_config={"model_type": "pixtral", **vision},
        image_token_index=2,
    )


def qwen2_5_vl() -> PretrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    text = tiny_config("qwen2").to_dict() | {
        "rope_parameters": rope,
        "model_type": "qwen2_5_vl_text",
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision | {"out_hidden_size": 16, "fullatt_block_indexes": [0]},
        tie_word_embeddings=False,
    )


def write(folder: Path, config: PretrainedConfig, seed: int, *, original: bool = True) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(folder, save_original_format=original)
    save_tokenizer(folder)
    return model.eval()


def test_a_search_says_what_the_model_is_and_what_works(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one")):
        write(tmp_path / name, mistral3(), seed)
    file = tmp_path / "e.yaml"
    experiment = {
        "models": {"base": "base", "experts": {"one": "one"}},
        "search_space": "global_linear",
        "evaluators": ["zoo"],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
    }
    file.write_text(yaml.safe_dump(experiment))
    with pytest.raises(ConfigError) as error:
        Loaded.of(load_experiment(file, Presets()))
    (fault,) = map(str, error.value.faults)
    assert "models.base" in fault
    assert "got a vision-language model (mistral3); 'evomerge merge' works" in fault
    assert len(fault) < 400
    with pytest.raises(CheckpointError, match=r"vision-language model \(mistral3\)"):
        load_model(str(tmp_path / "base"), "auto")


@torch.no_grad()
def test_a_merge_finds_the_same_tensors_under_old_and_new_names(tmp_path: Path) -> None:
    write(tmp_path / "base", qwen2_5_vl(), 0)
    expert = write(tmp_path / "one", qwen2_5_vl(), 1, original=False)
    names = [set(load_file(tmp_path / n / "model.safetensors")) for n in ("base", "one")]
    assert names[0] != names[1]
    recipe = Recipe(
        {"e": str(tmp_path / "one")},
        (Rule("linear", {"coefficient": 1.0}),),
        base=str(tmp_path / "base"),
    )
    write_checkpoint(recipe, tmp_path / "out")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == names[0]
    tokens = torch.arange(3, 19)[None]
    assert torch.equal(merged(tokens).logits, expert(tokens).logits)
