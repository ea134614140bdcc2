"""Tiny random models of many families, in real files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.tiny import WORDS, save_tokenizer

# What most configs call sizes; transformers translates the names where a family has its own.
_COMMON: Mapping[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
# family: (model type, settings beyond the common ones)
_FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": 8}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "gemma2": ("gemma2", {"head_dim": 8, "tie_word_embeddings": True, "sliding_window": 8}),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 8,
            "tie_word_embeddings": True,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "phi3": ("phi3", {}),
    "olmo2": ("olmo2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", {"tie_word_embeddings": True}),
    "mixtral": ("mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "qwen3_moe",
        {"head_dim": 8, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    ),
}
FAMILIES = tuple(_FAMILIES)
# Some of their parameters stay in float32 in a model of another dtype.
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
_MIXED = {
    "glm4_moe": ("glm4_moe", {"n_routed_experts": 4, "first_k_dense_replace": 1, **_EXPERTS}),
    "ernie4_5_moe": ("ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 2, **_EXPERTS}),
    "gpt_oss": ("gpt_oss", {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
MIXED_DTYPES = tuple(_MIXED)


def tiny_config(family: str, **settings: Any) -> PretrainedConfig:
    """Describe a model of three layers; a model type beyond the families is fine, too."""
    model_type, own = {**_FAMILIES, **_MIXED}.get(family, (family, {}))
    return CONFIG_MAPPING[model_type](**{**_COMMON, **own, **settings})


def tiny_model(
    family: str, folder: Path, seed: int, dtype: torch.dtype = torch.bfloat16, **settings: Any
) -> PreTrainedModel:
    """Write a random model with its tokenizer; all its tensors differ, norms and biases too."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_config(family, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()
