"""Models of vision and language: text experts merge into the language tower, parts are lent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

from evomerge.errors import CheckpointError, NonFiniteError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.models.companions import Companions
from evomerge.models.parts import PartsChoice
from evomerge.models.reference import AdapterRef, DeltaRef
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.models.vocabulary import tokens_of
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from tests.architectures import tiny_model
from tests.vision_language import IMAGE_TOKEN, text_model, vlm

TOWER, TEXT = "model.language_model.", "model."
TOKENS = torch.arange(3, 19)[None]


def exact(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


def assert_is(model: Any, expected: dict[str, torch.Tensor]) -> None:
    """Compare with plain float64 arithmetic, but for one rounding."""
    found = exact(model)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-7, atol=1e-7, msg=name)


def written(recipe: Recipe, out: Path) -> Any:
    write_checkpoint(recipe, out)
    return AutoModelForImageTextToText.from_pretrained(out).eval()


def arithmetic(experts: dict[str, Any], base: Path, **settings: Any) -> Recipe:
    coefficients = dict.fromkeys(experts, 0.25) | {next(iter(experts)): 0.5}
    rule = Rule("task_arithmetic", {"coefficient": coefficients})
    return Recipe(experts, (rule,), base=str(base), **settings)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gemma3", "llava", "qwen3_vl"])
def test_a_text_expert_merges_into_the_language_tower(family: str, tmp_path: Path) -> None:
    base, other = (vlm(tmp_path / n, family, i, original=not i) for i, n in enumerate("ao"))
    text = text_model(tmp_path / "t", family, 2)
    experts = {"text": str(tmp_path / "t"), "other": str(tmp_path / "o")}
    recipe = arithmetic(experts, tmp_path / "a", parts=PartsChoice(vision="other"))
    candidate = LiveCandidate(Sources.of(recipe))
    candidate.materialise(recipe)
    one, two, alone = exact(base), exact(other), exact(text)
    expected = dict(one)
    for name in one:
        own = name.replace(TOWER, TEXT)
        if own in alone:  # the tower
            tasks = 0.5 * (alone[own] - one[name]) + 0.25 * (two[name] - one[name])
            expected[name] = one[name] + tasks
        elif "merger" not in name and "projector" not in name:
            expected[name] = two[name]
    assert len(alone) < len(one)
    assert_is(candidate.model, expected)
    export = written(recipe, tmp_path / "out")
    assert all(
        map(torch.equal, export.state_dict().values(), candidate.model.state_dict().values())
    )
    assert torch.equal(export(TOKENS).logits, candidate.model(TOKENS).logits)
    assert torch.isfinite(export(TOKENS).logits).all()


@torch.no_grad()
def test_what_all_models_have_is_merged(tmp_path: Path) -> None:
    models = [vlm(tmp_path / n, "llava", i) for i, n in enumerate("abc")]
    recipe = arithmetic({"b": str(tmp_path / "b"), "c": str(tmp_path / "c")}, tmp_path / "a")
    sources = Sources.of(recipe)
    assert not sources.lent_names
    one, two, three = map(exact, models)
    expected = {n: x + 0.5 * (two[n] - x) + 0.25 * (three[n] - x) for n, x in one.items()}
    assert_is(written(recipe, tmp_path / "out"), expected)


@torch.no_grad()
def test_a_difference_of_text_models_is_added_to_the_tower(tmp_path: Path) -> None:
    base = exact(vlm(tmp_path / "base", "llava", 0))
    one, two = (exact(text_model(tmp_path / f"{i}", "llava", i)) for i in (1, 2))
    delta = DeltaRef(str(tmp_path / "1"), minus=str(tmp_path / "2"))
    expected = {
        name: x + 0.5 * (one[own] - two[own]) if (own := name.replace(TOWER, TEXT)) in one else x
        for name, x in base.items()
    }
    assert_is(written(arithmetic({"d": delta}, tmp_path / "base"), tmp_path / "out"), expected)


def test_what_cannot_lend_a_part_is_said(tmp_path: Path) -> None:
    vlm(tmp_path / "base", "llava", 0)
    text_model(tmp_path / "text", "llava", 1)
    experts = {"text": str(tmp_path / "text")}

    def refused(base: str, experts: dict[str, Any], **chosen: str) -> str:
        with pytest.raises(CheckpointError) as error:
            Sources(str(tmp_path / base), experts, parts=PartsChoice(**chosen))
        return str(error.value)

    assert "expected one of base, text, got 'txt'" in refused("base", experts, vision="txt")
    assert "got text, which has it not" in refused("base", experts, projector="text")
    assert "expected a model with a vision part" in refused("text", experts, vision="text")
    assert "make it the base" in refused("text", {"vlm": str(tmp_path / "base")})


def test_what_is_lent_is_finite_before_a_search(tmp_path: Path) -> None:
    base = vlm(tmp_path / "base", "llava", 0)
    text_model(tmp_path / "text", "llava", 1)
    base.model.vision_tower.embeddings.class_embedding.data[0] = torch.nan
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(NonFiniteError, match=r"base: .*got 1 NaN .*class_embedding of"):
        Sources(str(tmp_path / "base"), {"text": str(tmp_path / "text")}).check_finite()


def test_a_text_expert_of_another_shape_is_refused(tmp_path: Path) -> None:
    vlm(tmp_path / "base", "llava", 0)
    tiny_model("llama", tmp_path / "deep", 1, num_hidden_layers=4)
    tiny_model("llama", tmp_path / "wide", 1, intermediate_size=48)
    for name, text in (("deep", "got 9 more"), ("wide", r"of shape \(16, 40\)")):
        with pytest.raises(CheckpointError, match=text):
            Sources(str(tmp_path / "base"), {"t": str(tmp_path / name)})


@torch.no_grad()
def test_an_adapter_of_a_text_model_changes_the_tower(tmp_path: Path) -> None:
    base = exact(vlm(tmp_path / "base", "qwen2_5_vl", 0))
    text = exact(text_model(tmp_path / "text", "qwen2_5_vl", 1))
    module = "base_model.model.model.layers.1.self_attn.q_proj"
    a, b = torch.randn(2, 16), torch.randn(16, 2)
    (tmp_path / "lora").mkdir()
    factors = {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    save_file(factors, tmp_path / "lora" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    expert = AdapterRef(str(tmp_path / "lora"), on=str(tmp_path / "text"))
    name = "model.layers.1.self_attn.q_proj.weight"
    text[name] = text[name] + b.double() @ a.double()
    expected = {
        n: x + 0.5 * (text[own] - x) if (own := n.replace(TOWER, TEXT)) in text else x
        for n, x in base.items()
    }
    assert_is(written(arithmetic({"e": expert}, tmp_path / "base"), tmp_path / "out"), expected)


@torch.no_grad()
def test_layers_of_the_language_tower_run_along_paths(tmp_path: Path) -> None:
    vlm(tmp_path / "base", "llava", 0)
    text_model(tmp_path / "text", "llava", 1)
    path = (Hop("merged", 0), Hop("base", 2), Hop("merged", 1), Hop("merged", 1))
    recipe = arithmetic({"t": str(tmp_path / "text")}, tmp_path / "base", path=path)
    candidate = LiveCandidate(Sources.of(recipe))
    candidate.materialise(recipe)
    export = written(recipe, tmp_path / "out")
    assert export.config.get_text_config().num_hidden_layers == 4
    assert export.config.vision_config.num_hidden_layers == 3
    assert torch.equal(export(TOKENS).logits, candidate.model(TOKENS).logits)


def test_tokens_of_images_stay_the_bases(tmp_path: Path) -> None:
    """Chat template and special tokens may be those of an expert that knows of no images."""
    vlm(tmp_path / "base", "llava", 0)
    text_model(tmp_path / "text", "llava", 1)
    for choice in (TokenizerChoice(chat_template="text"), TokenizerChoice(source="model:text")):
        experts = {"text": str(tmp_path / "text")}
        sources = Sources(str(tmp_path / "base"), experts, tokenizer=choice)
        assert sources.anchor.config["image_token_index"] == IMAGE_TOKEN


def test_a_text_model_gets_no_tokens_of_images_from_a_chat_template(tmp_path: Path) -> None:
    vlm(tmp_path / "vlm", "llava", 0)
    text_model(tmp_path / "text", "llava", 1)
    text, whole = tmp_path / "text", tmp_path / "vlm"
    config = json.loads((text / "config.json").read_text())
    found = Companions(text, text, (), whole).config(config, tokens_of(text), 32)
    assert found.keys() == config.keys()
