"""Decoding of prepared prompts, and which models it decodes as their own ``generate`` does."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence

from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from evomerge.evaluation.choosing import Draws, likeliest
from evomerge.evaluation.prefix import Family, PrefixCache
from evomerge.evaluation.running import Prompts, write
from evomerge.evaluation.stops import Stops

__all__ = [
    "answered",
    "can_decode",
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


def can_decode(model: PreTrainedModel) -> bool:
    """Tell whether ``answered`` decodes a model as its own ``generate`` does."""
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
    draws: Draws | None,
    rows: int,
) -> Iterator[tuple[int, list[int], float]]:
    """Answer the prompts of every family.

    Args:
        model: A causal language model with a key-value cache.
        batches: Of each family, without its prefix.
        stops: When an answer ends.
        draws: How tokens are drawn; ``None`` takes the likeliest.
        rows: See ``write``.

    Yields:
        Each request, the tokens of its answer, and its share of the seconds.
    """
    for family, own in batches:
        prefix = PrefixCache(model, family.prefix)
        share = prefix.seconds / len(family.requests)
        seeds = [seed for prompts in own for seed in prompts.seeds]
        choose = likeliest if draws is None else draws.chooser(seeds)
        for one in write(model, own, prefix, stops, choose, rows):
            yield one.request, one.tokens, one.seconds + share
