"""Decoding of prepared prompts: finished sequences leave the batch at once."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from evomerge.evaluation.choosing import Chooser, Draws, likeliest
from evomerge.evaluation.prefix import Family, PrefixCache
from evomerge.evaluation.stops import Stops

__all__ = [
    "Prompts",
    "answered",
    "can_decode",
    "decode",
    "decodes_plainly",
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
        seeds: Of the draws of each answer, where tokens are drawn.
    """

    requests: tuple[int, ...]
    tokens: torch.Tensor
    mask: torch.Tensor
    max_tokens: int
    seeds: tuple[int, ...] = ()

    def after(self, length: int) -> Prompts:
        """Leave out the first tokens of each prompt; padding moves behind them."""
        kept = self.tokens.shape[1] - length
        return replace(self, tokens=self.tokens[:, length:], mask=self.mask[:, :kept])


def can_decode(model: PreTrainedModel) -> bool:
    """Tell whether ``decode`` decodes a model as its own ``generate`` does."""
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


def answered(
    model: PreTrainedModel,
    batches: Sequence[tuple[Family, Sequence[Prompts]]],
    stops: Stops,
    draws: Draws | None = None,
) -> Iterator[tuple[int, list[int], float]]:
    """Answer the prompts of every family.

    Args:
        model: A causal language model with a key-value cache.
        batches: Of each family, without its prefix.
        stops: When an answer ends.
        draws: How tokens are drawn; ``None`` takes the likeliest.

    Yields:
        Each request, the tokens of its answer, and its share of the seconds.
    """
    for family, own in batches:
        prefix = PrefixCache(model, family.prefix)
        share = prefix.seconds / len(family.requests)
        for prompts in own:
            start = time.perf_counter()
            choose = likeliest if draws is None else draws.chooser(prompts.seeds)
            answers = decode(model, prompts, prefix, stops, choose)
            seconds = (time.perf_counter() - start) / len(answers) + share
            for request, tokens in zip(prompts.requests, answers, strict=True):
                yield request, tokens, seconds


@torch.no_grad()
def decode(
    model: PreTrainedModel, prompts: Prompts, prefix: PrefixCache, stops: Stops, choose: Chooser
) -> list[list[int]]:
    """Answer every prompt, token by token.

    Args:
        model: A causal language model with a key-value cache.
        prompts: A batch.
        prefix: What comes before each prompt.
        stops: When an answer ends.
        choose: Which token comes next.

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
        chosen = choose(logits[:, -1], active)
        for i, token in zip(active, chosen.tolist(), strict=True):
            answers[i].append(token)
        going = [k for k, i in enumerate(active) if not stops.is_finished(answers[i])]
        if not going:
            break
        if len(going) < len(active):
            rows = torch.tensor(going, device=tokens.device)
            cache.batch_select_indices(rows)
            chosen, mask, positions = chosen[rows], mask[rows], positions[rows]
            active = [active[k] for k in going]
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=-1)
    return answers
