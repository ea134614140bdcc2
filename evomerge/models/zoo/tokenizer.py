"""The zoo's tokenizer: one token per word, so that prompts and answers are a handful of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

__all__ = ["build_tokenizer"]

_SPECIAL = ("<pad>", "<eos>", "<unk>")


def build_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer; ids 0, 1, 2 are padding, end of text and unknown.

    Args:
        words: The vocabulary; the order decides the ids.
    """
    ids = {word: index for index, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=32,
        clean_up_tokenization_spaces=False,
    )
