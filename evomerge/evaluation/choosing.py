"""Which token comes next: the likeliest, or one drawn by random numbers of its answer's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from evomerge.seeds import seed_for

__all__ = ["Chooser", "Draws", "draw_seed", "likeliest"]

# Given (sequences, vocabulary) logits and which answers of the batch they are for, in ascending
# order, the next token of each.
Chooser = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]

_TOP_K = 50  # where neither a task nor a model says, as transformers does


def likeliest(logits: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
    """Choose as greedy decoding does; in float32, since argmax is slow in bfloat16."""
    return logits.float().argmax(dim=-1)


def draw_seed(settings: Mapping[str, object], task: str, prompt: str, sample: int) -> int:
    """Name the draws of one answer: they depend on no other answer, and not on the batch.

    Args:
        settings: Of the request; its ``seed``.
        task: Who asks.
        prompt: What is asked.
        sample: Which of several answers to it.
    """
    return seed_for(int(str(settings.get("seed", 0))), "draw", task, prompt, sample)


@dataclass(frozen=True)
class Draws:
    """How tokens are drawn; probabilities are those of transformers' ``generate``.

    Attributes:
        temperature: What logits are divided by.
        top_k: Draw among so many of the likeliest; 0 means all.
        top_p: Draw among the likeliest that have this probability together.
        min_p: Draw among those with this share of the likeliest one's probability.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float

    @classmethod
    def of(cls, settings: Mapping[str, object], own: GenerationConfig) -> Draws:
        """Read the settings of a request; what it does not say, the model's own config may."""

        def find(name: str, default: float) -> float:
            value = settings.get(name, getattr(own, name, None))
            return default if value is None else float(str(value))

        top_k = int(find("top_k", _TOP_K))
        return cls(find("temperature", 1.0), top_k, find("top_p", 1.0), find("min_p", 0.0))

    def chooser(self, seeds: Sequence[int]) -> Chooser:
        """Make what chooses the tokens of a batch.

        Args:
            seeds: Of the draws of each answer, from its first token on.
        """
        streams = [np.random.default_rng(seed) for seed in seeds]

        def choose(logits: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
            numbers = [streams[i].random() for i in answers]
            reached = self.probabilities(logits).double().cumsum(-1)
            wanted = reached.new_tensor(numbers)[:, None] * reached[:, -1:]
            return torch.searchsorted(reached, wanted, right=True)[:, 0]

        return choose

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute what is drawn from: (sequences, vocabulary), float32."""
        nothing = torch.empty(0, dtype=torch.long, device=logits.device)
        kept: torch.Tensor = self._warpers(nothing, logits.float())  # type: ignore[arg-type]
        return kept.softmax(-1)

    @property
    def _warpers(self) -> LogitsProcessorList:
        found: list[LogitsProcessor] = [TemperatureLogitsWarper(self.temperature)]
        if self.top_k:
            found.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            found.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            found.append(MinPLogitsWarper(self.min_p))
        return LogitsProcessorList(found)
