"""What all prompts of a task begin with: run once per candidate, its keys and values are reused.

A task description, a system prompt or fixed examples are often most of a prompt.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

__all__ = ["Family", "PrefixCache", "families", "keeps_positions", "unrelated"]

_SHORTEST = 32  # tokens; running fewer apart gains nothing
_LEAST_SAVED = 0.25  # of the tokens of a task's prompts


@dataclass(frozen=True)
class Family:
    """Requests whose prompts begin with the same tokens.

    Attributes:
        prefix: These tokens; none where requests share nothing that is worth it.
        requests: Their positions among the requests.
    """

    prefix: tuple[int, ...]
    requests: tuple[int, ...]


def unrelated(n: int) -> Family:
    """Return n requests as a family that shares nothing."""
    return Family((), tuple(range(n)))


def families(prompts: Sequence[Sequence[int]], tasks: Sequence[str]) -> list[Family]:
    """Find the tasks whose prompts share a prefix that pays; all other requests are one family.

    It pays if it has at least 32 tokens and running it once saves a quarter of the tokens of the
    task's prompts. At least one token of each prompt comes after it.

    Args:
        prompts: Tokens of each request's prompt, what is scored after it not included.
        tasks: The task of each request.
    """
    by_task: dict[str, list[int]] = defaultdict(list)
    for request, task in enumerate(tasks):
        by_task[task].append(request)
    by_prefix: dict[str, Family] = {}
    others: list[int] = []
    for task, requests in by_task.items():
        if prefix := _prefix([prompts[request] for request in requests]):
            by_prefix[task] = Family(prefix, tuple(requests))
        else:
            others += requests
    return [*by_prefix.values(), *([Family((), tuple(others))] if others else [])]


def _prefix(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The longest common prefix that leaves a token of each prompt; nothing if it does not pay."""
    distinct = {tuple(prompt) for prompt in prompts}
    first, last = min(distinct), max(distinct)  # all others lie between them
    limit = min(map(len, distinct)) - 1
    length = next((i for i in range(limit) if first[i] != last[i]), limit)
    saved = length * (len(distinct) - 1)
    pays = length >= _SHORTEST and saved >= _LEAST_SAVED * sum(map(len, distinct))
    return first[:length] if pays else ()


def keeps_positions(model: PreTrainedModel) -> bool:
    """Tell whether a token's position means the same in a prefix as in a longer sequence.

    Rotary embeddings of type ``dynamic`` and ``longrope`` change with the length.
    """
    kinds = " ".join(str(getattr(module, "rope_type", "")) for module in model.modules())
    return "dynamic" not in kinds and "longrope" not in kinds


class PrefixCache:
    """Keys and values of a prefix under the live model as it is now; every batch gets a copy.

    Args:
        model: A causal language model; one with a key-value cache unless the prefix is empty.
        prefix: Tokens, possibly none.

    Attributes:
        length: Number of tokens of the prefix.
        seconds: What running it took.
    """

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, prefix: Sequence[int]) -> None:
        start = time.perf_counter()
        self.length = len(prefix)
        self._cache = DynamicCache(config=model.config)
        if prefix:
            tokens = torch.tensor([prefix], device=model.device)
            model(tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self.seconds = time.perf_counter() - start

    def copies(self, n: int) -> DynamicCache:
        """Return a cache for n sequences that begin with the prefix."""
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]  # tensors are not written to
        cache.batch_repeat_interleave(n)
        return cache

    def before(self, mask: torch.Tensor) -> tuple[DynamicCache, torch.Tensor, torch.Tensor]:
        """Put the prefix before sequences that are padded on the left.

        Args:
            mask: (sequences, length) int64, 1 where there is a token.

        Returns:
            Their cache; the mask with the prefix, (sequences, prefix + length); and the positions
            of their tokens, (sequences, length).
        """
        whole = torch.cat([mask.new_ones(len(mask), self.length), mask], dim=-1)
        positions = (whole.cumsum(-1) - 1).clamp(min=0)[:, self.length :]
        return self.copies(len(mask)), whole, positions
