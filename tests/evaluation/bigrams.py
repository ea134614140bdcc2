"""A Llama whose next token depends on the last one alone, so that its answers are known by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "</s>", "<pad>"]


def word_tokenizer(
    words: list[str], *, hidden: tuple[str, ...] = (), chat_template: str | None = None
) -> PreTrainedTokenizerFast:
    """Split at blanks; hidden words vanish from decoded text, as special tokens do."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(word, special=True) for word in hidden])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=chat_template,
    )


def bigram_llama(
    tokenizer: PreTrainedTokenizerFast, following: Mapping[str, Mapping[str, float]]
) -> LlamaForCausalLM:
    """Make a Llama with these probabilities of the next word, by the last one.

    Its layer adds nothing to one-hot embeddings, so that logits are rows of the head.
    """
    n = len(tokenizer)
    width = n + n % 2
    config = LlamaConfig(
        vocab_size=n,
        hidden_size=width,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
        rms_norm_eps=1e-12,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(n, width))
        head = torch.full((n, width), -50.0)
        for word, after in following.items():
            for other, probability in after.items():
                ids = tokenizer.convert_tokens_to_ids([other, word])
                head[ids[0], ids[1]] = math.log(probability)
        model.lm_head.weight.copy_(head / math.sqrt(width))  # what the norm multiplies with
    return model
