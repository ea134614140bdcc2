"""One model under two spellings of its tensor names, both of which transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3Config

from evomerge.errors import CheckpointError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.opening import open_model
from evomerge.models.reference import AdapterRef, DeltaRef
from evomerge.models.spelling import OneSpelling
from evomerge.recipe.recipe import Recipe, Rule
from tests.architectures import tiny_config, tiny_model

MASK = "h.0.attn.bias"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def save(folder: Path, content: dict[str, torch.Tensor]) -> None:
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(torch.arange(2, 14)[None]).logits  # type: ignore[no-any-return]


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def hub_gpt2(tmp_path: Path) -> tuple[Path, Path]:
    """GPT-2 as the Hub has it, with a stored mask, and a fine-tune of it as saved today."""
    base, one = tmp_path / "base", tmp_path / "one"
    for seed, folder in enumerate((base, one)):
        tiny_model("gpt2", folder, seed=seed, dtype=torch.float32)
    bare = {name.removeprefix("transformer."): t for name, t in tensors(base).items()}
    save(base, bare | {MASK: torch.ones(1, 1, 64, 64).tril()})
    return base, one


def gemma3(folder: Path, seed: int, *, original: bool) -> None:
    """Write a vision-language Gemma 3: named as on the Hub, or as transformers 4.52 and later."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = Gemma3Config(
        text_config=tiny_config("gemma3_text", head_dim=8, tie_word_embeddings=True).to_dict(),
        vision_config={**vision, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        image_token_index=28,
        mm_tokens_per_image=4,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, save_original_format=original)


def test_gpt2_of_the_hub_merges_with_its_fine_tune(
    hub_gpt2: tuple[Path, Path], tmp_path: Path
) -> None:
    base, one = hub_gpt2
    for anchor, expert in ((base, one), (one, base)):
        out = tmp_path / f"out_{anchor.name}"
        recipe = Recipe(
            {"e": str(expert)}, (Rule("linear", {"coefficient": 1.0}),), base=str(anchor)
        )
        candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
        candidate.materialise(recipe)
        write_checkpoint(recipe, out)
        assert torch.equal(logits(candidate.model), logits(load(expert)))
        assert torch.equal(logits(load(out)), logits(load(expert)))
        assert set(tensors(out)) == set(tensors(anchor))
    assert torch.equal(tensors(tmp_path / "out_base")[MASK], tensors(base)[MASK])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_of_the_live_model_fits_files_of_any_spelling(
    hub_gpt2: tuple[Path, Path], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    base, _ = hub_gpt2
    config = peft.LoraConfig(
        r=2, init_lora_weights=False, target_modules=["c_attn"], fan_in_fan_out=True
    )
    peft.get_peft_model(load(base), config).save_pretrained(tmp_path / "lora")
    wanted = peft.PeftModel.from_pretrained(load(base), tmp_path / "lora").merge_and_unload()
    expert = AdapterRef(str(tmp_path / "lora"), on=str(base))
    recipe = Recipe({"e": expert}, (Rule("linear", {"coefficient": 1.0}),), base=str(base))
    write_checkpoint(recipe, tmp_path / "out")
    torch.testing.assert_close(logits(load(tmp_path / "out")), logits(wanted))


def test_a_delta_of_two_spellings_is_the_difference(hub_gpt2: tuple[Path, Path]) -> None:
    base, one = hub_gpt2
    tiny_model("gpt2", base.parent / "two", seed=2, dtype=torch.float32)
    delta = Sources(str(base.parent / "two"), {"e": DeltaRef(str(one), minus=str(base))}).experts[
        "e"
    ]
    name = "transformer.h.1.mlp.c_fc.weight"
    found = [tensors(base.parent / folder) for folder in ("two", "one", "base")]
    wanted = found[0][name] + found[1][name] - found[2][name.removeprefix("transformer.")]
    torch.testing.assert_close(delta.tensor(name), wanted)


@pytest.mark.parametrize("original", [True, False])
def test_gemma_3_merges_across_its_renaming(original: bool, tmp_path: Path) -> None:
    base, one = tmp_path / "base", tmp_path / "one"
    gemma3(base, 0, original=original)
    gemma3(one, 1, original=not original)
    assert not set(tensors(base)) & set(tensors(one))
    recipe = Recipe({"e": str(one)}, (Rule("linear", {"coefficient": 1.0}),), base=str(base))
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    candidate.materialise(recipe)
    write_checkpoint(recipe, tmp_path / "out")
    assert torch.equal(logits(candidate.model), logits(load(one)))
    assert torch.equal(logits(load(tmp_path / "out")), logits(load(one)))
    assert set(tensors(tmp_path / "out")) == set(tensors(base))


def test_other_names_of_a_checkpoint_read_the_same_tensors(hub_gpt2: tuple[Path, Path]) -> None:
    base = Checkpoint(hub_gpt2[0])
    other = base.named({"first": "wte.weight", "again": "wte.weight"})
    assert other.names == ("again", "first")
    assert "wte.weight" not in other
    assert "wte.weight" in base
    assert torch.equal(other.tensor("again"), base.tensor("wte.weight"))
    assert [part.name for part in other.parts("first")] == ["wte.weight"]
    with pytest.raises(CheckpointError, match=r"expected tensor 'wte\.weight'"):
        other.tensor("wte.weight")


def test_a_tensor_stored_under_two_spellings_is_refused(hub_gpt2: tuple[Path, Path]) -> None:
    base, _ = hub_gpt2
    found = tensors(base)
    save(base, found | {"transformer.h.0.ln_1.bias": found["h.0.ln_1.bias"] + 1})
    with pytest.raises(CheckpointError, match=r"once in .*h\.0\.ln_1\.bias.*remove one") as error:
        OneSpelling(open_model)(str(base))
    assert len(str(error.value).splitlines()) == 1


def test_what_only_the_expert_loads_is_refused(tmp_path: Path) -> None:
    """Unlike a buffer that no model loads, a bias of the expert is a part of it."""
    for seed, (name, biased) in enumerate([("base", False), ("one", True)]):
        tiny_model("llama", tmp_path / name, seed=seed, attention_bias=biased)
    with pytest.raises(CheckpointError, match=r"got 12 more in .*, e\.g\. .*k_proj\.bias"):
        Sources(str(tmp_path / "base"), {"e": str(tmp_path / "one")})
    with pytest.raises(CheckpointError, match="got 12 less"):
        Sources(str(tmp_path / "one"), {"e": str(tmp_path / "base")})


def test_what_only_the_base_loads_does_not_stand_for_it_in_the_expert(tmp_path: Path) -> None:
    """The expert stores biases that its own config switches off: transformers ignores them."""
    for seed, name in enumerate(("base", "one")):
        tiny_model("llama", tmp_path / name, seed=seed, attention_bias=True)
    file = tmp_path / "one" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_bias": False}))
    with pytest.raises(CheckpointError, match="got 12 less"):
        Sources(str(tmp_path / "base"), {"e": str(tmp_path / "one")})
