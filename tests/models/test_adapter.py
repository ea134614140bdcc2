"""LoRA adapters against PEFT's own merge, on adapters that PEFT wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from evomerge.errors import CheckpointError
from evomerge.models.adapter import Adapter
from evomerge.models.checkpoint import Checkpoint
from tests.tiny import save_tiny_llama

peft = pytest.importorskip("peft")

ATTENTION_AND_MLP = ["q_proj", "k_proj", "down_proj"]


def llama(folder: Path, **options: Any) -> PreTrainedModel:
    return save_tiny_llama(folder, seed=0, dtype=torch.float32, n_layers=2, **options)


def gpt2(folder: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return model


def trained(folder: Path, model: PreTrainedModel, **options: Any) -> dict[str, torch.Tensor]:
    """Write an adapter with random factors; return what PEFT merges it to."""
    torch.manual_seed(1)
    config = peft.LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder)
    return dict(wrapped.merge_and_unload().state_dict())


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (llama, {"target_modules": ATTENTION_AND_MLP, "r": 4, "lora_alpha": 6}),
        (llama, {"target_modules": ATTENTION_AND_MLP, "r": 4, "use_rslora": True}),
        (llama, {"target_modules": "all-linear", "r": 3}),
        (
            llama,
            {
                "target_modules": ATTENTION_AND_MLP,
                "r": 4,
                "lora_alpha": 6,
                "rank_pattern": {"down_proj": 7, r"layers\.1\.self_attn\.q_proj": 2},
                "alpha_pattern": {"k_proj": 11, "layers.0.mlp.down_proj": 3},
                "use_rslora": True,
            },
        ),
        (llama, {"target_modules": ["v_proj"], "modules_to_save": ["lm_head", "norm"]}),
        (llama, {"target_modules": ["embed_tokens", "lm_head", "o_proj"], "r": 2}),
        (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
        (gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"}),
    ],
    ids=["targets", "rslora", "all_linear", "patterns", "saved", "embedding", "conv1d", "bias"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_is_what_peft_merges_it_to(
    build: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    merged = trained(tmp_path / "adapter", build(tmp_path / "base"), **options)
    base = Checkpoint(tmp_path / "base")
    adapter = Adapter(tmp_path / "adapter", base)
    changed = 0
    for name in base.names:
        torch.testing.assert_close(adapter.tensor(name), merged[name], rtol=1e-5, atol=1e-6)
        changed += not torch.equal(adapter.tensor(name), base.tensor(name))
    assert changed == sum(not torch.equal(merged[n], base.tensor(n)) for n in base.names)
    assert changed >= 2


def simple(tmp_path: Path) -> tuple[Path, Checkpoint]:
    trained(tmp_path / "adapter", llama(tmp_path / "base"), target_modules=["q_proj", "up_proj"])
    return tmp_path / "adapter", Checkpoint(tmp_path / "base")


def test_tensors_that_the_adapter_leaves_alone_stay_mapped(tmp_path: Path) -> None:
    folder, base = simple(tmp_path)
    adapter = Adapter(folder, base)
    assert len(adapter.parts("model.norm.weight")) == 1
    assert len(adapter.parts("model.layers.0.self_attn.q_proj.weight")) == 3


def test_tiles_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, base = simple(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    whole = Adapter(folder, base).tensor(name)
    monkeypatch.setattr("evomerge.models.tiles._TILE", 48)
    assert torch.equal(Adapter(folder, base).tensor(name), whole)


@pytest.mark.parametrize(
    "option",
    [
        {"use_dora": True},
        {"peft_type": "IA3"},
        {"init_lora_weights": "pissa_niter_4"},
        {"lora_bias": True},
        {"trainable_token_indices": [3, 4]},
    ],
)
def test_other_formulas_are_refused(option: dict[str, Any], tmp_path: Path) -> None:
    folder, base = simple(tmp_path)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **option}))
    with pytest.raises(CheckpointError, match=f"plain LoRA .* with {next(iter(option))}.*merge it"):
        Adapter(folder, base)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lora_alpha": "4"}, "expected a number as lora_alpha in .*, got '4'"),
        ({"lora_alpha": float("nan")}, "expected a number as lora_alpha in .*, got nan"),
        ({"lora_alpha": True}, "expected a number as lora_alpha in .*, got True"),
        ({"lora_alpha": 10**400}, "expected a number as lora_alpha in .*, got 1000"),
        ({"alpha_pattern": 2.5}, "expected numbers by pattern as alpha_pattern in .*, got 2.5"),
        ({"alpha_pattern": ["q"]}, "expected numbers by pattern as alpha_pattern in "),
        ({"alpha_pattern": {"(": 1}}, "expected numbers by pattern as alpha_pattern in "),
        ({"alpha_pattern": {"q": None}}, "expected a number as alpha_pattern of q in .*, got None"),
    ],
)
def test_what_is_no_scale_is_refused(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    folder, base = simple(tmp_path)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=expected) as error:
        Adapter(folder, base)
    assert len(str(error.value).splitlines()) == 1


def test_a_real_dora_adapter_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "a", llama(tmp_path / "base"), target_modules=["q_proj"], use_dora=True)
    with pytest.raises(CheckpointError, match="use_dora"):
        Adapter(tmp_path / "a", Checkpoint(tmp_path / "base"))


def test_an_adapter_for_a_wider_base_names_the_tensor(tmp_path: Path) -> None:
    folder, _ = simple(tmp_path)
    gpt2(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"that fits .*/other.*layers\.0\.mlp\.up_proj"):
        Adapter(folder, Checkpoint(tmp_path / "other"))


def edited(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = {**load_file(file), **changes}
    save_file({k: v for k, v in tensors.items() if v is not None}, file)


UP = "base_model.model.model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {f"{UP}.lora_A.weight": torch.ones(8, 15)},
            "has shape (40, 15), model.layers.0.mlp.up_proj.weight has (40, 16)",
        ),
        (
            {f"{UP}.lora_A.weight": torch.ones(5, 16)},
            "of shapes (5, 16) and (40, 8) have no common rank",
        ),
        (
            {f"{UP}.lora_A.weight": torch.ones(0, 16), f"{UP}.lora_B.weight": torch.ones(40, 0)},
            "of shapes (0, 16) and (40, 0) have no common rank",
        ),
        ({f"{UP}.lora_B.weight": None}, "other factor is missing"),
        ({f"{UP}.lora_magnitude_vector": torch.ones(40)}, "no tensor model.layers.0.mlp.up"),
        ({"base_model.model.lm_head.weight": torch.ones(33, 16)}, "its shape is (33, 16)"),
    ],
)
def test_misfits_name_the_tensor_and_the_file(
    changes: dict[str, torch.Tensor | None], expected: str, tmp_path: Path
) -> None:
    folder, base = simple(tmp_path)
    edited(folder, **changes)
    with pytest.raises(CheckpointError) as error:
        Adapter(folder, base)
    assert expected in str(error.value)
    assert "adapter_model.safetensors" in str(error.value)
    assert next(iter(changes)).rpartition(".lora")[0] in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_pickled_adapter_is_refused_with_how_to_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = simple(tmp_path)
    file = folder / "adapter_model.safetensors"
    torch.save(load_file(file), folder / "adapter_model.bin")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"safetensors.*adapter_model\.bin.*pickle") as error:
        Adapter(folder, base)
    monkeypatch.chdir(folder)
    command = str(error.value).partition("convert it: ")[2]
    exec(f"import torch, safetensors.torch; {command}", {}, {})  # as the user would
    assert Adapter(folder, base).parts("model.layers.0.mlp.up_proj.weight")


def test_the_base_named_in_the_config_is_only_a_hint(tmp_path: Path) -> None:
    folder, base = simple(tmp_path)
    file = folder / "adapter_config.json"
    changed = {**json.loads(file.read_text()), "base_model_name_or_path": "somebody/else"}
    file.write_text(json.dumps(changed))
    Adapter(folder, base)


def test_it_loads_as_peft_loads_it(tmp_path: Path) -> None:
    """From disk into PEFT and back: nothing depends on the objects that wrote the files."""
    folder, base = simple(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    merged = peft.PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
    for name in base.names:
        torch.testing.assert_close(Adapter(folder, base).tensor(name), merged[name])
