"""Tiny random models of vision and language, and models of text that fit into their towers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
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
_SIDE = {"height": 28, "width": 28}
# model type: settings of the processor, and of what prepares images for it
_PROCESSORS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3": (
        {"processor_class": "Gemma3Processor", "image_seq_length": 4},
        {"image_processor_type": "Gemma3ImageProcessor", "size": _SIDE},
    ),
    "llava": (
        {
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
            "image_token": WORDS[IMAGE_TOKEN],
        },
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 28},
            "crop_size": _SIDE,
        },
    ),
    "qwen2_5_vl": (
        {"processor_class": "Qwen2_5_VLProcessor"},
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            "patch_size": 14,
            "min_pixels": 28 * 28,
            "max_pixels": 56 * 56,
        },
    ),
}


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


def save_processor(folder: Path, family: str = "llava") -> None:
    """Write a processor beside a model's tokenizer; needs Pillow, Qwen's torchvision, too.

    An image becomes 4 tokens of a LLaVA or Gemma, and what its size asks for of a Qwen.
    """
    image, begin, end = WORDS[IMAGE_TOKEN], WORDS[IMAGE_TOKEN - 1], WORDS[IMAGE_TOKEN - 2]
    named = {"image_token": image}
    if family == "qwen2_5_vl":
        named["video_token"] = begin
    elif family == "gemma3":
        named |= {"boi_token": begin, "eoi_token": end}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, extra_special_tokens=named)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    for name, settings in zip(("processor", "preprocessor"), _PROCESSORS[family], strict=True):
        (folder / f"{name}_config.json").write_text(json.dumps(settings))


@torch.no_grad()
def _saved(auto: Any, config: PretrainedConfig, folder: Path, seed: int, original: bool) -> Any:
    torch.manual_seed(seed)
    model = auto.from_config(config)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder, save_original_format=original)
    save_tokenizer(folder)
    return model.eval()
