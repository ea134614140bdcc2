"""How long a model's answers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from transformers import PreTrainedTokenizerBase

from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.scores import MetricValue

__all__ = ["GENERATION", "output_tokens"]

GENERATION = "generate_until"


def output_tokens(tasks: Sequence[PreparedTask], tokenizer: PreTrainedTokenizerBase) -> MetricValue:
    """Average the length of the last answers over the items that ask for generated text.

    Args:
        tasks: Just scored, at least one of them generating.
        tokenizer: Of the model.

    Returns:
        Tokens per item. Answers are counted as the task sees them: up to the stop string, without
        special tokens, whatever else a batch generated meanwhile.
    """
    generating = [task for task in tasks if task.task.OUTPUT_TYPE == GENERATION]
    lengths = [_length(item, tokenizer) for task in generating for item in task.items]
    n = len(lengths)
    stderr = stdev(lengths) / math.sqrt(n) if n > 1 else math.nan
    return MetricValue(fmean(lengths), stderr, n)


def _length(item: Item, tokenizer: PreTrainedTokenizerBase) -> float:
    answers = [answer for request in item.requests for answer in request.resps]
    tokens = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return fmean(len(one) for one in tokens)
