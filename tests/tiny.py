"""Tiny random models: real architecture, real files, no training."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(29))]


def save_tiny_llama(
    folder: Path,
    *,
    seed: int,
    near: LlamaForCausalLM | None = None,
    dtype: torch.dtype = torch.bfloat16,
    n_layers: int = 4,
    tied: bool = False,
) -> LlamaForCausalLM:
    """Write a random Llama; with ``near``, a small random step away from that model."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=n_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    if near is not None:
        with torch.no_grad():
            for own, other in zip(model.parameters(), near.parameters(), strict=True):
                own.copy_(other + 0.3 * (own - other.float().mean()))
    model.to(dtype).save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_tokenizer(folder: Path) -> None:
    """Write a word-level tokenizer."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
