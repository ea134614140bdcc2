"""How long a model's answers are, and how many are cut off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from transformers import PreTrainedTokenizerBase

from evomerge.evaluation.engine import Answer
from evomerge.evaluation.scores import MetricValue

__all__ = ["output_tokens", "truncated"]

Generated = Sequence[Sequence[Answer]]  # of each item, at least one


def output_tokens(answers: Generated, tokenizer: PreTrainedTokenizerBase) -> MetricValue:
    """Average the length of answers.

    Args:
        answers: Of each item that asks for generated text.
        tokenizer: Of the model.

    Returns:
        Tokens per answer. Answers are counted with their reasoning and up to the stop string,
        without special tokens, whatever else a batch generated meanwhile.
    """
    return _mean([_length(of_item, tokenizer) for of_item in answers])


def truncated(answers: Generated) -> MetricValue:
    """Find the share of answers that reached their greatest length, or whose reasoning goes on."""
    return _mean([fmean(answer.is_truncated for answer in of_item) for of_item in answers])


def _length(answers: Sequence[Answer], tokenizer: PreTrainedTokenizerBase) -> float:
    tokens = tokenizer([answer.text for answer in answers], add_special_tokens=False)["input_ids"]
    return fmean(len(one) for one in tokens)


def _mean(values: Sequence[float]) -> MetricValue:
    n = len(values)
    return MetricValue(fmean(values), stdev(values) / math.sqrt(n) if n > 1 else math.nan, n)
