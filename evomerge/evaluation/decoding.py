"""Greedy decoding of prepared prompts: finished sequences leave the batch at once."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from evomerge.evaluation.prefix import Family, PrefixCache, select_rows

__all__ = [
    "Prompts",
    "Stops",
    "can_decode",
    "decode_greedily",
    "decodes_plainly",
    "greedy_answers",
    "has_plain_cache",
    "shortest_window",
]

# What a generation config may say without changing what greedy decoding yields.
_HARMLESS = {
    "_from_model_config",
    "bos_token_id",
    "do_sample",
    "eos_token_id",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}


@dataclass(frozen=True)
class Prompts:
    """Prompts of one batch.

    Attributes:
        requests: Position of each prompt among the requests.
        tokens: (sequences, length) int64, padded on the left.
        mask: (sequences, length) int64, 1 where there is a prompt.
        max_tokens: How many tokens each answer may take.
    """

    requests: tuple[int, ...]
    tokens: torch.Tensor
    mask: torch.Tensor
    max_tokens: int

    def after(self, length: int) -> Prompts:
        """Leave out the first tokens of each prompt; padding moves behind them."""
        kept = self.tokens.shape[1] - length
        return replace(self, tokens=self.tokens[:, length:], mask=self.mask[:, :kept])


class Stops:
    """Tells when an answer is finished: an end token, or a stop string in its text.

    Args:
        tokenizer: Decodes answers.
        strings: Stop strings.
        end_tokens: Tokens that end an answer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        strings: Sequence[str],
        end_tokens: frozenset[int],
    ) -> None:
        self._tokenizer, self._strings, self._end_tokens = tokenizer, strings, end_tokens
        last = {string[-1] for string in strings if string}
        self._endings = last | {"\N{REPLACEMENT CHARACTER}"}  # part of a character of many bytes
        self._may_end: Callable[[tuple[int, ...]], bool] = functools.lru_cache(1 << 16)(
            self._ends_some_string
        )

    def text(self, answer: Sequence[int]) -> str:
        """Decode an answer as lm-eval does."""
        return str(self._tokenizer.decode(list(answer), skip_special_tokens=True))

    def is_finished(self, answer: Sequence[int]) -> bool:
        """Tell whether the last token has finished an answer."""
        if answer[-1] in self._end_tokens:
            return True
        if not self._may_end(tuple(answer[-2:])):
            return False
        text = self.text(answer)
        return any(string in text for string in self._strings if string)

    def _ends_some_string(self, tokens: tuple[int, ...]) -> bool:
        """Whether the last of a few tokens may complete a stop string: cheap, and rarely so."""
        text = self.text(tokens)
        return any(character in text for character in self._endings)


def can_decode(model: PreTrainedModel) -> bool:
    """Tell whether ``decode_greedily`` decodes a model as its own ``generate`` does."""
    return has_plain_cache(model) and decodes_plainly(model)


def decodes_plainly(model: PreTrainedModel) -> bool:
    """Tell whether ``generate`` adds nothing to greedy decoding, such as penalties."""
    settings = {k for k, v in model.generation_config.to_diff_dict().items() if v}
    return settings <= _HARMLESS


def has_plain_cache(model: PreTrainedModel) -> bool:
    """Tell whether a model remembers keys and values per token, and nothing else."""
    needed = {"position_ids", "past_key_values", "logits_to_keep"}
    has_arguments = needed <= set(inspect.signature(model.forward).parameters)
    layers = DynamicCache(config=model.config).layers
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return has_arguments and all(type(layer) in plain for layer in layers)


def shortest_window(model: PreTrainedModel) -> float:
    """Tell how far back all layers look, in tokens: infinite without sliding windows."""
    layers = DynamicCache(config=model.config).layers
    windows = [one.sliding_window for one in layers if isinstance(one, DynamicSlidingWindowLayer)]
    own: int | None = getattr(model.config, "window_size", None)  # of GPT-Neo, not in its cache
    return min([*windows, own or math.inf])


def greedy_answers(
    model: PreTrainedModel, batches: Sequence[tuple[Family, Sequence[Prompts]]], stops: Stops
) -> Iterator[tuple[int, list[int], float]]:
    """Answer the prompts of every family.

    Args:
        model: A causal language model with a key-value cache.
        batches: Of each family, without its prefix.
        stops: When an answer ends.

    Yields:
        Each request, the tokens of its answer, and its share of the seconds.
    """
    for family, own in batches:
        prefix = PrefixCache(model, family.prefix)
        share = prefix.seconds / len(family.requests)
        for prompts in own:
            start = time.perf_counter()
            answers = decode_greedily(model, prompts, prefix, stops)
            seconds = (time.perf_counter() - start) / len(answers) + share
            for request, tokens in zip(prompts.requests, answers, strict=True):
                yield request, tokens, seconds


@torch.no_grad()
def decode_greedily(
    model: PreTrainedModel, prompts: Prompts, prefix: PrefixCache, stops: Stops
) -> list[list[int]]:
    """Answer every prompt with the most likely token at each step.

    Args:
        model: A causal language model with a key-value cache.
        prompts: A batch.
        prefix: What comes before each prompt.
        stops: When an answer ends.

    Returns:
        Tokens of each answer, the one that ended it included.
    """
    answers: list[list[int]] = [[] for _ in prompts.requests]
    active = list(range(len(answers)))
    tokens = prompts.tokens
    cache, mask, positions = prefix.before(prompts.mask)
    for _ in range(prompts.max_tokens):
        logits = model(
            tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        chosen = logits[:, -1].float().argmax(dim=-1)  # as generate does; slow in bfloat16
        for i, token in zip(active, chosen.tolist(), strict=True):
            answers[i].append(token)
        going = [k for k, i in enumerate(active) if not stops.is_finished(answers[i])]
        if not going:
            break
        if len(going) < len(active):
            rows = torch.tensor(going, device=tokens.device)
            select_rows(cache, rows)
            chosen, mask, positions = chosen[rows], mask[rows], positions[rows]
            active = [active[k] for k in going]
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=-1)
    return answers
