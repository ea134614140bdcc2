"""Tiny models whose vocabularies differ, and what their rows are by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

PLAIN = ("<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(13)))
"""Tokens of the vocabulary proper; all others are added to it."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def save_model(
    folder: Path,
    words: Sequence[str],
    *,
    seed: int,
    n_rows: int | None = None,
    near: LlamaForCausalLM | None = None,
    tied: bool = False,
    eos: str = "<eos>",
    template: str | None = None,
    hidden_size: int = 16,
) -> LlamaForCausalLM:
    """Write a random Llama with a row for each word, and rows of padding; its tokenizer beside it.

    Args:
        folder: Where.
        words: By row; begins with ``PLAIN``, in any order.
        seed: Of its parameters.
        n_rows: Rows in all.
        near: Gives the layers, with a small change.
        tied: Whether head and embedding are one.
        eos: The token at which it stops.
        template: Its chat template.
        hidden_size: Width of its embedding.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=n_rows or len(words),
        hidden_size=hidden_size,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        pad_token_id=words.index("<pad>"),
        eos_token_id=words.index(eos),
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
        if near is not None:
            for name, theirs in near.model.layers.state_dict().items():
                model.model.layers.state_dict()[name].mul_(0.1).add_(theirs)
    model.save_pretrained(folder)
    save_words(folder, words, eos, template)
    return model


def save_words(folder: Path, words: Sequence[str], eos: str, template: str | None) -> None:
    """Write a word-level tokenizer with these ids."""
    plain = {word: row for row, word in enumerate(words[: len(PLAIN)])}
    tokenizer = Tokenizer(models.WordLevel(plain, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words[len(PLAIN) :]])
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token=eos, unk_token="<unk>"
    )
    found.chat_template = template
    found.save_pretrained(folder)


def rows_by_token(folder: Path, words: Sequence[str], name: str) -> Mapping[str, torch.Tensor]:
    """Read a model's rows with transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    table = model.state_dict()[name]
    return {word: table[row] for row, word in enumerate(words)}
