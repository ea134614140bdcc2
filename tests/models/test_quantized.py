"""Quantized checkpoints are refused by what they hold; a setting that was left over is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.errors import CheckpointError
from evomerge.merging.candidate import LiveCandidate, load_model
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import Checkpoint, quantized_tensor
from evomerge.recipe.recipe import Recipe, Rule

Family = dict[str, Path]
LINEAR = "model.layers.0.mlp.up_proj"
# What the libraries store in place of, or beside, a linear layer's weight.
FORMATS = {
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
    "awq": ("qweight", "qzeros", "scales"),
    "bitsandbytes 8 bits": ("SCB", "weight_format"),
    "bitsandbytes 4 bits": (
        *("weight.absmax", "weight.quant_map", "weight.nested_absmax"),
        *("weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4"),
    ),
    "fp8": ("weight_scale", "weight_scale_inv"),
    "compressed-tensors": ("weight_packed", "weight_shape", "weight_zero_point", "weight_g_idx"),
    "nvfp4": ("weight_scale_2", "weight_global_scale"),
    "eetq": ("weight_scales",),
    "hqq": ("W_q",),
    "quanto": ("weight._data", "weight._scale"),
    "torchao": ("_weight_qdata", "_weight_scale"),
    "aqlm": ("codebooks",),
    "mxfp4": ("up_proj_blocks", "up_proj_scales"),
}


def with_config(source: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    ("method", "leaf"), [(method, leaf) for method, leaves in FORMATS.items() for leaf in leaves]
)
def test_every_tensor_of_every_format_is_recognised(method: str, leaf: str) -> None:
    """Whatever its dtype: scales are floating, and would be merged."""
    assert quantized_tensor([f"{LINEAR}.{leaf}"], lambda _: torch.float16) is not None


def test_tensors_of_plain_models_are_not(tiny_family: Family) -> None:
    stored = Checkpoint(tiny_family["base"])
    masks = {"transformer.h.0.attn.bias": torch.uint8, "rotary_emb.inv_freq": torch.float32}
    others = dict.fromkeys(
        (
            *("model.layers.0.mlp.gate.e_score_correction_bias", "model.layers.0.scale"),
            *("model.layers.0.self_attn.k_scale", "vision.patch_embedding.weight_bias"),
            *("blocks.0.weight", "data.weight", "logit_scale", "layer_scale.lambda1"),
        ),
        torch.bfloat16,
    )
    known = {**{name: stored.dtype(name) for name in stored.names}, **masks, **others}
    assert quantized_tensor(known, known.__getitem__) is None


def test_weights_in_whole_numbers_are_refused(tiny_family: Family, tmp_path: Path) -> None:
    folder = with_config(tiny_family["base"], tmp_path / "q")
    stored = load_file(folder / "model.safetensors")
    stored[f"{LINEAR}.weight"] = stored[f"{LINEAR}.weight"].to(torch.int8)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"expected plain weights .* got {LINEAR}\.weight"):
        Checkpoint(folder)


def test_the_refusal_names_model_tensor_and_method(tiny_family: Family, tmp_path: Path) -> None:
    settings = {"quant_method": "gptq", "bits": 4}
    folder = with_config(tiny_family["one"], tmp_path / "q", quantization_config=settings)
    stored = load_file(folder / "model.safetensors")
    stored[f"{LINEAR}.scales"] = torch.rand(1, 40).half()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    fault = rf"experts\.x: .*plain weights in {folder}, got {LINEAR}\.scales .*\(gptq\)"
    with pytest.raises(CheckpointError, match=fault):
        Sources(str(tiny_family["base"]), {"x": str(folder)})


def test_a_setting_beside_plain_weights_is_left_behind(tiny_family: Family, tmp_path: Path) -> None:
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    base = with_config(tiny_family["base"], tmp_path / "base", quantization_config=settings)
    recipe = Recipe(
        {"one": str(tiny_family["one"])},
        (Rule("task_arithmetic", {"coefficient": 0.5}),),
        base=str(base),
    )
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    candidate.materialise(recipe)
    write_checkpoint(recipe, tmp_path / "out")
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in candidate.model.state_dict().items():
        assert torch.equal(tensor, written[name])


def test_a_model_with_such_a_setting_is_loaded_as_plain(
    tiny_family: Family, tmp_path: Path
) -> None:
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    folder = with_config(tiny_family["one"], tmp_path / "x", quantization_config=settings)
    wanted = load_file(tiny_family["one"] / "model.safetensors")
    live = load_model(str(folder), "auto").state_dict()
    assert all(torch.equal(live[name], tensor) for name, tensor in wanted.items())
