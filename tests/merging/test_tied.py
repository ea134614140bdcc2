"""Head and embedding: one tensor or two, by what is stored and what adapters change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import CheckpointError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.size import layers_run, n_parameters
from evomerge.merging.sources import Sources
from evomerge.models.reference import AdapterRef, DeltaRef, ModelRef
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import save_tiny_llama

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, config: dict[str, Any] | None = None, **changed: torch.Tensor) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **(config or {})}))
    names = {"head": HEAD, "embedding": EMBEDDING}
    found = tensors(folder) | {names[key]: tensor for key, tensor in changed.items()}
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two tied models, stored once."""
    for seed, name in enumerate(("base", "one")):
        save_tiny_llama(tmp_path / name, seed=seed, tied=True, dtype=torch.float32, n_layers=2)
    return tmp_path / "base", tmp_path / "one"


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(torch.arange(3, 19)[None]).logits  # type: ignore[no-any-return]


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


def half(base: Path, expert: ModelRef) -> Recipe:
    return Recipe({"e": expert}, (Rule("task_arithmetic", {"coefficient": 0.5}),), base=str(base))


@pytest.mark.parametrize("untied", ["base", "one"])
def test_a_merge_with_an_untied_model_has_two_heads(
    pair: tuple[Path, Path], untied: str, tmp_path: Path
) -> None:
    base, one = pair
    shuffled = tensors(base)[EMBEDDING].flip(0).contiguous()
    rewrite(tmp_path / untied, head=shuffled)
    recipe = half(base, str(one))
    write_checkpoint(recipe, tmp_path / "out")
    found, first, second = tensors(tmp_path / "out"), tensors(base), tensors(one)
    heads = (first.get(HEAD, first[EMBEDDING]), second.get(HEAD, second[EMBEDDING]))
    torch.testing.assert_close(found[HEAD], (heads[0] + heads[1]) / 2)
    torch.testing.assert_close(found[EMBEDDING], (first[EMBEDDING] + second[EMBEDDING]) / 2)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    candidate.materialise(recipe)
    assert candidate.model.config.tie_word_embeddings is False
    assert torch.equal(logits(candidate.model), logits(load(tmp_path / "out")))


def test_a_head_stored_twice_and_equal_is_tied(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, one = pair
    rewrite(one, {"tie_word_embeddings": False}, head=tensors(one)[EMBEDDING].clone())
    recipe = half(base, str(one))
    write_checkpoint(recipe, tmp_path / "out")
    assert HEAD not in tensors(tmp_path / "out")
    sources = Sources(recipe.base, recipe.experts)
    assert n_parameters(layers_run(recipe, 2), sources) == load(base).num_parameters()


def test_a_delta_of_untied_models_is_untied(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """base + (model - minus), where only the head of ``model`` was trained."""
    base, one = pair
    rewrite(one, embedding=tensors(base)[EMBEDDING], head=tensors(base)[EMBEDDING] + 1)
    trained = DeltaRef(str(one), minus=str(base))
    save_tiny_llama(tmp_path / "two", seed=2, tied=True, dtype=torch.float32, n_layers=2)
    sources = Sources(str(tmp_path / "two"), {"e": trained})
    assert sources.is_untied
    embedding = tensors(tmp_path / "two")[EMBEDDING]
    torch.testing.assert_close(sources.experts["e"].tensor(HEAD), embedding + 1)
    torch.testing.assert_close(sources.experts["e"].tensor(EMBEDDING), embedding)


@pytest.mark.parametrize("culprit", ["base", "one"])
def test_an_untied_model_without_a_head_is_refused(
    pair: tuple[Path, Path], culprit: str, tmp_path: Path
) -> None:
    """transformers would make up random numbers."""
    rewrite(tmp_path / culprit, {"tie_word_embeddings": False})
    with pytest.raises(CheckpointError) as error:
        Sources(str(pair[0]), {"e": str(pair[1])})
    for line in str(error.value).splitlines():
        assert f"expected lm_head.weight in {tmp_path / culprit}" in line
        assert "set tie_word_embeddings to true" in line


SAVED = {"target_modules": ["q_proj"]}
TIED = {"ensure_weight_tying": True}
ADAPTERS: dict[str, tuple[dict[str, Any], bool]] = {  # and whether it unties
    "head": (SAVED | {"modules_to_save": ["lm_head"]}, True),
    "embedding": (SAVED | {"modules_to_save": ["embed_tokens"]}, True),
    "both": (SAVED | {"modules_to_save": ["embed_tokens", "lm_head"]}, True),
    "tied_head": (SAVED | TIED | {"modules_to_save": ["lm_head"]}, False),
    "tied_embedding": (SAVED | TIED | {"modules_to_save": ["embed_tokens"]}, False),
    "low_rank_head": ({"target_modules": ["lm_head"]}, True),
    "low_rank_embedding": ({"target_modules": ["embed_tokens", "v_proj"]}, True),
    "low_rank_tied": ({"target_modules": ["embed_tokens"]} | TIED, False),
    "no_head_at_all": ({"target_modules": ["q_proj", "down_proj"]}, False),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("stored", ["once", "twice"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_of_a_tied_model_is_what_peft_runs(
    adapter: str, stored: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """With the factors beside the model; where they are not of head or embedding, merged, too."""
    peft = pytest.importorskip("peft")
    base, _ = pair
    if stored == "twice":
        rewrite(base, head=tensors(base)[EMBEDDING].clone())
    options, unties = ADAPTERS[adapter]
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **options)
    trained = peft.get_peft_model(load(base), config)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    trained.save_pretrained(tmp_path / "lora")
    model = peft.PeftModel.from_pretrained(load(base), tmp_path / "lora")
    wanted = logits(model)
    expert = AdapterRef(str(tmp_path / "lora"), on=str(base))
    recipe = Recipe({"e": expert}, (Rule("linear", {"coefficient": 1.0}),), base=str(base))
    sources = Sources(recipe.base, recipe.experts, tmp_path / "shared")
    assert sources.is_untied == unties
    candidate = LiveCandidate(sources)
    candidate.materialise(recipe)
    torch.testing.assert_close(logits(candidate.model), wanted, rtol=1e-4, atol=1e-4)
    write_checkpoint(recipe, tmp_path / "out")
    torch.testing.assert_close(logits(load(tmp_path / "out")), logits(candidate.model))
    if "low_rank" not in adapter:
        merged = logits(model.merge_and_unload())
        torch.testing.assert_close(logits(candidate.model), merged, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
@pytest.mark.parametrize("stored", ["once", "twice"])
def test_what_an_adapter_keeps_beside_its_factors_is_loaded_as_peft_does(
    targets: list[str], stored: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """PEFT loads the tensor beneath the factors into the model, where it is head and embedding."""
    peft = pytest.importorskip("peft")
    base, _ = pair
    if stored == "twice":
        rewrite(base, head=tensors(base)[EMBEDDING].clone())
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=2, init_lora_weights=False, task_type="CAUSAL_LM", target_modules=targets
    )
    trained = peft.get_peft_model(load(base), config)
    with torch.no_grad():
        trained.get_input_embeddings().weight.add_(0.1)
    trained.save_pretrained(tmp_path / "lora", save_embedding_layers=True)
    kept = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert [name for name in kept if name.endswith("base_layer.weight")]
    wanted = logits(peft.PeftModel.from_pretrained(load(base), tmp_path / "lora"))
    expert = AdapterRef(str(tmp_path / "lora"), on=str(base))
    recipe = Recipe({"e": expert}, (Rule("linear", {"coefficient": 1.0}),), base=str(base))
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts, tmp_path / "shared"))
    candidate.materialise(recipe)
    torch.testing.assert_close(logits(candidate.model), wanted, rtol=1e-4, atol=1e-4)


def test_statistics_of_one_stored_tensor_under_two_names_are_not_mixed_up(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter changes head and embedding of a tied model in two ways; both are ranked."""
    base, _ = pair
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "lm_head.lora_A.weight": (2, 16),
        "lm_head.lora_B.weight": (32, 2),
        "model.embed_tokens.lora_embedding_A": (2, 32),
        "model.embed_tokens.lora_embedding_B": (16, 2),
    }
    factors = {
        f"base_model.model.{name}": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    (tmp_path / "lora").mkdir()
    save_file(factors, tmp_path / "lora" / "adapter_model.safetensors")
    (tmp_path / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    recipe = Recipe(
        {"e": AdapterRef(str(tmp_path / "lora"), on=str(base))},
        (Rule("ties", {"coefficient": 1.0, "density": 0.3}),),
        base=str(base),
    )
    found = {}
    for cache in ("off", str(tmp_path / "cache")):
        monkeypatch.setenv("EVOMERGE_CACHE", cache)
        write_checkpoint(recipe, tmp_path / "out")
        found[cache] = tensors(tmp_path / "out")
    without, with_cache = found.values()
    assert without.keys() == with_cache.keys()
    assert all(torch.equal(with_cache[name], tensor) for name, tensor in without.items())
    assert not torch.equal(without[HEAD], without[EMBEDDING])
