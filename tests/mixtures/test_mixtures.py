"""Mixtures of experts: stock transformers loads them, and with equal experts they are the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from evomerge.errors import CheckpointError, ConfigError, EvomergeError, NonFiniteError
from evomerge.export.mixture import export_mixture
from evomerge.mixtures.file import load_mixture
from evomerge.mixtures.folder import write_mixture
from evomerge.models.checkpoint import Checkpoint
from tests.tiny import WORDS, save_tiny_llama, save_tokenizer

TOKENS = torch.tensor([[3, 9, 4, 11, 5, 7, 21, 8, 30, 12]])
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 4}),
    "tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "qwen2": (
        Qwen2Config,
        Qwen2ForCausalLM,
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8, "attention_bias": True}),
}


def save(folder: Path, family: str, seed: int, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    config, model_class, settings = FAMILIES[family]
    sizes = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    own = {"tie_word_embeddings": False, "initializer_range": 0.3, **settings, **changes}
    model: PreTrainedModel = model_class(
        config(**{"vocab_size": len(WORDS), **sizes, **heads, **ends, **own})
    )
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter)
    model.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return model


def write(folder: Path, **content: Any) -> Path:
    file = folder / "moe.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def loaded(folder: Path) -> PreTrainedModel:
    both: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model: PreTrainedModel = both[0].eval()
    assert not any(both[1].values()), both[1]
    return model


def expert(model: str, *prompts: str, **others: Any) -> dict[str, Any]:
    return {"source_model": model, "positive_prompts": list(prompts), **others}


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llamas")
    for i, name in enumerate(("base", "one", "two", "three")):
        save(folder / name, "llama", i)
    return folder


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        ("llama", "MixtralForCausalLM"),
        ("mistral", "MixtralForCausalLM"),
        ("tied", "MixtralForCausalLM"),
        ("qwen2", "Qwen2MoeForCausalLM"),
        ("qwen3", "Qwen3MoeForCausalLM"),
    ],
)
def test_with_experts_that_are_the_base_it_answers_as_the_base(
    family: str, architecture: str, tmp_path: Path
) -> None:
    base = save(tmp_path / "base", family, 0)
    silent = {"source_model": "base", "residual_scale": 0}
    shared = {"shared_experts": [silent]} if family == "qwen2" else {}
    file = write(
        tmp_path,
        base_model="base",
        gate_mode="random",
        experts=[{"source_model": "base"}] * 3,
        **shared,
    )
    export_mixture(load_mixture(file), tmp_path / "out")
    model = loaded(tmp_path / "out")
    assert type(model).__name__ == architecture
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, base(TOKENS).logits, rtol=0, atol=1e-5)


def test_a_shared_expert_adds_to_the_chosen_ones(llamas: Path, tmp_path: Path) -> None:
    """One expert, and a shared one behind a gate that is 0: half of it is added."""
    source = {"source_model": str(llamas / "one")}
    file = write(
        tmp_path,
        base_model=str(llamas / "base"),
        gate_mode="random",
        architecture="qwen",
        experts_per_token=1,
        experts=[source],
        shared_experts=[{"source_model": str(llamas / "two"), "residual_scale": 0.5}],
    )
    write_mixture(load_mixture(file), tmp_path / "out")
    block = loaded(tmp_path / "out").model.layers[0].mlp
    torch.nn.init.zeros_(block.shared_expert_gate.weight)
    one, two = (
        LlamaForCausalLM.from_pretrained(llamas / n).model.layers[0].mlp for n in ("one", "two")
    )
    states = torch.randn(1, 5, 16)
    wanted = one(states) + 0.5 * 0.5 * two(states)
    torch.testing.assert_close(block(states), wanted, rtol=1e-4, atol=1e-5)


def test_tensors_are_the_experts_and_stored_by_the_names_of_mixtral(
    llamas: Path, tmp_path: Path
) -> None:
    names = ("one", "two", "three")
    file = write(
        tmp_path,
        base_model=str(llamas / "base"),
        gate_mode="random",
        experts=[{"source_model": str(llamas / n)} for n in names],
    )
    written = write_mixture(load_mixture(file), tmp_path / "out")
    stored = Checkpoint(tmp_path / "out")
    assert "model.layers.2.block_sparse_moe.experts.1.w2.weight" in stored
    model = loaded(tmp_path / "out")
    assert isinstance(model, MixtralForCausalLM)
    sources = [LlamaForCausalLM.from_pretrained(llamas / name) for name in names]
    for layer, block in enumerate(model.model.layers):
        for i, source in enumerate(sources):
            mlp = source.model.layers[layer].mlp
            both = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
            assert torch.equal(block.mlp.experts.gate_up_proj[i], both)
            assert torch.equal(block.mlp.experts.down_proj[i], mlp.down_proj.weight)
    n = sum(parameter.numel() for parameter in model.parameters())
    assert (written.n_parameters, written.n_active) == (n, n - 3 * 3 * 16 * 40)


@pytest.mark.parametrize("mode", ["hidden", "hidden_avg", "cheap_embed"])
def test_routers_are_what_prompts_look_like_inside_the_base(
    mode: str, llamas: Path, tmp_path: Path
) -> None:
    prompts = {"one": ["w1 w2 w3", "w4 w2"], "two": ["w7", "w8 w9"]}
    against = ["w20 w21", "w5"]
    file = write(
        tmp_path,
        base_model=str(llamas / "base"),
        gate_mode=mode,
        experts=[
            expert(str(llamas / "one"), *prompts["one"], negative_prompts=against),
            expert(str(llamas / "two"), *prompts["two"]),
        ],
    )
    write_mixture(load_mixture(file), tmp_path / "out")
    base = LlamaForCausalLM.from_pretrained(llamas / "base").eval()

    def look(texts: list[str]) -> torch.Tensor:
        found = []
        for text in texts:
            tokens = torch.tensor([[WORDS.index(word) for word in text.split()]])
            if mode == "cheap_embed":
                found.append(base.model.embed_tokens(tokens)[0].sum(0).expand(3, -1))
                continue
            with torch.no_grad():
                states = base(tokens, output_hidden_states=True).hidden_states[:-1]
            own = torch.stack([s[0].mean(0) if mode == "hidden_avg" else s[0, -1] for s in states])
            found.append(own)
        if mode == "cheap_embed":
            return torch.nn.functional.normalize(torch.stack(found).sum(0), dim=-1)
        return torch.stack(found).mean(0)

    rows = [look(prompts["one"]) - look(against), look(prompts["two"])]
    wanted = torch.nn.functional.normalize(torch.stack(rows, dim=1), dim=-1)
    model = loaded(tmp_path / "out")
    for layer, block in enumerate(model.model.layers):
        torch.testing.assert_close(block.mlp.gate.weight.data, wanted[layer])


def test_what_is_drawn_depends_on_the_seed_alone(llamas: Path, tmp_path: Path) -> None:
    def gates(seed: int, out: str) -> dict[str, torch.Tensor]:
        file = write(
            tmp_path,
            base_model=str(llamas / "base"),
            gate_mode="uniform_random",
            experts=[
                {"source_model": str(llamas / "one"), "noise_scale": 0.1},
                {"source_model": str(llamas / "two")},
            ],
            seed=seed,
        )
        write_mixture(load_mixture(file), tmp_path / out)
        stored = Checkpoint(tmp_path / out)
        return {name: stored.tensor(name).clone() for name in stored.names}

    first, again, other = gates(1, "a"), gates(1, "b"), gates(2, "c")
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed == {n for n in first if ".experts.0." in n or ".gate." in n}
    gate = first["model.layers.0.block_sparse_moe.gate.weight"]
    assert gate.abs().max() <= 0.25  # 1 / sqrt(16)
    noise = first["model.layers.0.block_sparse_moe.experts.0.w1.weight"] - (
        Checkpoint(llamas / "one").tensor("model.layers.0.mlp.gate_proj.weight")
    )
    assert noise.std().item() == pytest.approx(0.1, rel=0.15)


def test_experts_may_have_more_tokens_than_the_base(tmp_path: Path) -> None:
    save(tmp_path / "base", "llama", 0)
    save(tmp_path / "one", "llama", 1, vocab_size=40)
    file = write(
        tmp_path,
        base_model="base",
        dtype="bfloat16",
        experts_per_token=1,
        experts=[expert("one", "w1", negative_prompts=["w2"]), expert("base", "w3")],
    )
    write_mixture(load_mixture(file), tmp_path / "out", shard_bytes=8000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    model = loaded(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert model.config.vocab_size == len(WORDS)


def test_an_adapter_on_a_model_is_an_expert(llamas: Path, tmp_path: Path) -> None:
    """Written as mergekit does, and as recipes do."""
    tuned: Any = get_peft_model(
        LlamaForCausalLM.from_pretrained(llamas / "base"),
        LoraConfig(r=2, target_modules=["up_proj", "down_proj"], init_lora_weights=False),
    )
    tuned.save_pretrained(str(tmp_path / "adapter"))
    base, adapter = str(llamas / "base"), str(tmp_path / "adapter")
    sources = [f"{base}+{adapter}", {"adapter": adapter, "on": base}, {"model": {"path": base}}]
    experts = [{"source_model": source} for source in sources]
    file = write(tmp_path, base_model=base, gate_mode="random", experts=experts)
    write_mixture(load_mixture(file), tmp_path / "out")
    found = loaded(tmp_path / "out").model.layers[1].mlp.experts.down_proj
    wanted = tuned.merge_and_unload().model.layers[1].mlp.down_proj.weight
    torch.testing.assert_close(found[0], wanted)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_the_recipe_beside_it_makes_it_again(llamas: Path, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        base_model=str(llamas / "base"),
        experts=[expert(str(llamas / "one"), "w1"), expert(str(llamas / "two"), "w2")],
    )
    export_mixture(load_mixture(file), tmp_path / "a")
    again = load_mixture(tmp_path / "a" / "recipe.yaml")
    assert again.digest == load_mixture(file).digest
    export_mixture(again, tmp_path / "a")  # an earlier merge is replaced
    export_mixture(again, tmp_path / "b")
    a, b = (tmp_path / name / "model.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    card = (tmp_path / "a" / "README.md").read_text()
    assert "2 of them for each token" in card
    assert str(llamas) not in card


def test_faults_are_told_with_their_lines_before_a_model_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "moe.yaml"
    file.write_text(
        "base_model: nowhere\n"
        "experts_per_tokn: 1\n"
        "experts:\n"
        "  - source_model: a\n"
        "    positiv_prompts: [x]\n"
        "  - source_model: b\n"
        "    noise_scale: loud\n"
    )
    with pytest.raises(ConfigError) as error:
        load_mixture(file)
    lines = [str(fault).removeprefix(f"{file}:") for fault in error.value.faults]
    assert sorted(lines) == [
        "2: experts_per_tokn: unknown key; did you mean 'experts_per_token'?",
        "5: experts[0].positiv_prompts: unknown key; did you mean 'positive_prompts'?",
        "7: experts[1].noise_scale: expected a number, got 'loud'",
    ]


def test_what_cannot_route_is_refused(tmp_path: Path) -> None:
    same, none = expert("a", "x"), {"source_model": "b", "negative_prompts": [" "]}
    file = write(tmp_path, base_model="c", experts=[same, same], experts_per_token=3)
    with pytest.raises(ConfigError, match="3") as error:
        load_mixture(file)
    assert [fault.path for fault in error.value.faults] == [("experts_per_token",), ("experts",)]
    file = write(tmp_path, base_model="c", experts=[same, none])
    with pytest.raises(ConfigError) as error:
        load_mixture(file)
    paths = [fault.path for fault in error.value.faults]
    assert paths == [("experts", 1), ("experts", 1, "negative_prompts", 0)]


def fault_of(tmp_path: Path, **content: Any) -> EvomergeError:
    file = write(tmp_path, **{"gate_mode": "random", "experts_per_token": 1, **content})
    with pytest.raises(EvomergeError) as error:
        write_mixture(load_mixture(file), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return error.value


def test_models_that_do_not_fit_are_all_named(llamas: Path, tmp_path: Path) -> None:
    base = str(llamas / "base")
    save(tmp_path / "wide", "llama", 0, intermediate_size=48)
    save(tmp_path / "other", "qwen3", 0)
    experts = [{"source_model": name} for name in ("wide", "gone", "other", base)]
    error = fault_of(tmp_path, base_model=base, experts=experts)
    assert isinstance(error, CheckpointError)
    assert [fault.path[1] for fault in error.faults] == [0, 1, 2]
    own = [{"source_model": "other"}]
    text = str(fault_of(tmp_path, base_model="other", experts=own, architecture="mixtral"))
    assert text == (
        "base_model: expected a model of type llama or mistral for Mixtral, got 'qwen3'"
    )
    assert "Mixtral, Qwen MoE, Qwen3 MoE, got 'deepseek'" in str(
        fault_of(tmp_path, base_model=base, experts=own, architecture="deepseek")
    )


def test_biases_that_the_mixture_has_no_place_for_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "base", "llama", 0, attention_bias=True)
    error = fault_of(tmp_path, base_model="base", experts=[{"source_model": "base"}])
    assert "no place for, got 12, e.g. model.layers.0.self_attn." in str(error)


def test_numbers_that_are_not_finite_leave_no_tensors_behind(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "base", seed=0)
    loud = {"source_model": "base", "residual_scale": 1e38}
    file = write(
        tmp_path, base_model="base", gate_mode="random", dtype="float16", experts=[loud] * 2
    )
    with pytest.raises(NonFiniteError, match="NaN or infinite in model"):
        write_mixture(load_mixture(file), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))
