"""Tiny configs of every type that transformers has a causal language model for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.tiny import WORDS

__all__ = ["LEFT_OUT", "TYPES", "sweep_config"]

_ENCODERS = (
    "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert "
    "roberta roberta-prelayernorm roc_bert roformer xlm xlm-roberta xlm-roberta-xl xlnet xmod "
    "reformer"
)
_DECODERS_OF_PAIRS = (
    "bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart prophetnet "
    "trocr whisper"
)
_PARTS = (
    "dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_unified git got_ocr2 llama4 mllama moshi "
    "moss_transcribe_diarize musicgen musicgen_melody phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp"
)
LEFT_OUT: Mapping[str, str] = {
    **dict.fromkeys(_ENCODERS.split(), "an encoder, run as a decoder"),
    **dict.fromkeys(_DECODERS_OF_PAIRS.split(), "the decoder of a pair of encoder and decoder"),
    **dict.fromkeys(_PARTS.split(), "several parts: images or sound beside the language model"),
    "gemma4_assistant": "a drafting head that runs on another model's cache",
    "gemma4_unified_assistant": "a drafting head that runs on another model's cache",
    "blt": "bytes in patches of another model: no tokens",
}
"""Types that are not swept, and what they are instead of a decoder of its own."""
TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - LEFT_OUT.keys()))

_ALWAYS: Mapping[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 1,
}
# Whatever a type has of these, under the names that its config has for them.
_SIZES: Mapping[str, Any] = {
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 8,
    "sliding_window_size": 8,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
    "shared_experts_intermediate_size": 8,
    "moe_shared_expert_intermediate_size": 8,
    "shared_intermediate_size": 8,
    "dense_intermediate_size": 24,
    "intermediate_size_mlp": 24,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_dense_layers": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 64,
    "gated_norm_rank": 4,
    "o_groups": 2,
    "o_lora_rank": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_head_dim": 8,
    "linear_num_heads": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_d_ssm": 32,
    "mamba_chunk_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "ssm_state_size": 8,
    "n_groups": 2,
    "chunk_size": 8,
    "n_mamba_heads": 4,
    "state_size": 8,
    "num_mtp_layers": 0,
    "num_nextn_predict_layers": 0,
}
_ALTERNATING = {"layer_types": ["linear_attention", "full_attention"] * 2}
_CONVOLVED = {"layer_types": ["conv", "full_attention"] * 2}
_LATENT = {"num_key_value_heads": 4, "head_dim": 4}  # queries and keys of one rank
_EXPERTS = {"n_shared_experts": 1}
_SLIDING_ROPE = {
    kind: {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    for kind in ("sliding_attention", "full_attention")
}
# What a type needs beyond, so that it has layers of every sort and few parameters.
_OWN: Mapping[str, Mapping[str, Any]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "bailing_hybrid": {**_LATENT, **_ALTERNATING},
    "bamba": {"attn_layer_indices": [1, 3]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {"rope_parameters": _SLIDING_ROPE},
    "cpmant": {"dim_ff": 24, "dim_head": 4, "prompt_length": 2},
    "ctrl": {"dff": 24},
    "dbrx": {
        "d_model": 16,
        "n_heads": 4,
        "n_layers": 4,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 24, "hidden_size": 16},
    },
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v32"), _LATENT),
    "deepseek_v4": {"num_key_value_heads": 1},
    "doge": {"is_moe": True, "num_experts": 16},
    "dots1": _EXPERTS,
    "dots3_note_text": {
        **_LATENT,
        **dict.fromkeys(("swa_num_attention_heads", "swa_num_key_value_heads"), 4),
        **dict.fromkeys(("swa_q_lora_rank", "swa_kv_lora_rank"), 8),
        "swa_head_dim": 8,
        "swa_qk_nope_head_dim": 4,
        "swa_v_head_dim": 8,
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 4,
        "vocab_size_per_layer_input": len(WORDS),
        "laurel_rank": 4,
    },
    "gemma4_text": {
        "hidden_size_per_layer_input": 4,
        "vocab_size_per_layer_input": len(WORDS),
        "global_head_dim": 8,
        "enable_moe_block": True,
        "top_k_experts": 2,
    },
    "gemma4_unified_text": {"global_head_dim": 8},
    "glm4_moe_lite": _LATENT,
    "glm_moe_dsa": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 8},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": _ALTERNATING,
    "helium": {"head_dim": 4},
    "hunyuan_v1_moe": {"moe_topk": 2},
    "inkling2_text": {
        **dict.fromkeys(("swa_num_attention_heads", "swa_num_key_value_heads"), 4),
        "swa_head_dim": 8,
        "d_rel": 4,
        "rel_extent": 8,
    },
    "inkling_text": {
        **dict.fromkeys(("swa_num_attention_heads", "swa_num_key_value_heads"), 4),
        "swa_head_dim": 8,
        "d_rel": 4,
        "rel_extent": 8,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {**_LATENT, **_ALTERNATING},
    "lfm2": _CONVOLVED,
    "lfm2_moe": _CONVOLVED,
    "longcat_flash": {
        **_LATENT,
        "ffn_hidden_size": 24,
        "expert_ffn_hidden_size": 8,
        "zero_expert_num": 2,
        "moe_topk": 2,
    },
    "mamba2": {"num_heads": 4, "head_dim": 8},
    "minicpm3": _LATENT,
    "nanochat": {"intermediate_size": 24},
    "opt": {"ffn_dim": 24},
    "qwen4_exp_text": {
        "hc_lowrank": 4,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {"attention_window_size": 8, "num_key_value_heads": 1},
    "xglm": {"ffn_dim": 24},
    "xlstm": {
        "hidden_size": 32,
        "embedding_dim": 32,
        "num_heads": 2,
        "qk_dim_factor": 1.0,
        "chunk_size": 16,
    },
    "youtu": _LATENT,
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
}


def sweep_config(model_type: str) -> PretrainedConfig:
    """Describe a model of four layers of 16 channels, with every sort of layer that it has."""
    kind = CONFIG_MAPPING[model_type]
    known = {field.name for field in fields(kind)} | set(kind.attribute_map)
    sizes = {name: value for name, value in _SIZES.items() if name in known}
    return kind(**{**_ALWAYS, **sizes, **_OWN.get(model_type, {})})
