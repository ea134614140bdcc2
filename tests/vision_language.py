"""Tiny random models of vision and language, and models of text that fit into their towers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.architectures import tiny_config
from tests.tiny import WORDS, save_tokenizer

IMAGE_TOKEN = 27
CHAT = (
    "{% for m in messages %}w1 {% for c in m.content %}"
    "{% if c.type == 'image' %}w24{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} w2{% endif %}"
)
_VIT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    # As many as the language tower: what tells them apart is not their number.
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_CLIP = {"model_type": "clip_vision_model", **_VIT}
_SIGLIP = {"model_type": "siglip_vision_model", **_VIT}
_QWEN_VIT = {
    "depth": 3,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 16,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
_QWEN_IDS = {"image_token_id": IMAGE_TOKEN, "video_token_id": 26, "vision_start_token_id": 25}
# model type: (language model, what its config has more, vision config, settings of the whole)
_FAMILIES: Mapping[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "gemma3": (
        "gemma3",
        {},
        {k: v for k, v in _SIGLIP.items() if k != "model_type"},
        {"image_token_index": IMAGE_TOKEN, "mm_tokens_per_image": 4, "tie_word_embeddings": True},
    ),
    "llava": ("llama", {}, _CLIP, {"image_token_index": IMAGE_TOKEN, "vision_feature_layer": -2}),
    "mistral3": (
        "mistral",
        {},
        {"model_type": "pixtral", "head_dim": 8, **_VIT},
        {"image_token_index": IMAGE_TOKEN},
    ),
    "qwen2_5_vl": (
        "qwen2",
        {"rope_parameters": _ROPE, "model_type": "qwen2_5_vl_text"},
        {**_QWEN_VIT, "fullatt_block_indexes": [0]},
        _QWEN_IDS,
    ),
    "qwen3_vl": (
        "qwen3",
        {"rope_parameters": {**_ROPE, "mrope_interleaved": True}, "model_type": "qwen3_vl_text"},
        {**_QWEN_VIT, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        _QWEN_IDS,
    ),
}
FAMILIES = tuple(_FAMILIES)


def vlm_config(family: str) -> PretrainedConfig:
    """Describe a model of vision and language, with three layers in each tower."""
    text, more, vision, own = _FAMILIES[family]
    settings = {"tie_word_embeddings": False, **own}
    inside = tiny_config(text).to_dict() | more
    return CONFIG_MAPPING[family](text_config=inside, vision_config=vision, **settings)


def vlm(folder: Path, family: str, seed: int, *, original: bool = True) -> Any:
    """Write a random model; all of its tensors differ.

    Args:
        folder: Written, with a tokenizer.
        family: Its model type.
        seed: Names its numbers.
        original: Whether its tensors are named as on the Hub, or as transformers names them.
    """
    return _saved(AutoModelForImageTextToText, vlm_config(family), folder, seed, original)


def text_model(folder: Path, family: str, seed: int) -> Any:
    """Write a random model of text alone that fits into the language tower of a family."""
    return _saved(AutoModelForCausalLM, tiny_config(_FAMILIES[family][0]), folder, seed, True)


def save_processor(folder: Path) -> None:
    """Write a LLaVA's processor beside its tokenizer; needs Pillow. An image becomes 4 tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    image = WORDS[IMAGE_TOKEN]
    tokenizer.add_special_tokens({"additional_special_tokens": [image]})
    size, crop = {"shortest_edge": 28}, {"height": 28, "width": 28}
    LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=crop),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=image,
        chat_template=CHAT,
    ).save_pretrained(folder)


@torch.no_grad()
def _saved(auto: Any, config: PretrainedConfig, folder: Path, seed: int, original: bool) -> Any:
    torch.manual_seed(seed)
    model = auto.from_config(config)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder, save_original_format=original)
    save_tokenizer(folder)
    return model.eval()
