"""How far a model's predictions are from a reference model's, on prompts of its own tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean, stdev

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.requests import PreparedTask
from evomerge.evaluation.scores import MetricValue
from evomerge.seeds import seed_for

__all__ = ["Divergence"]

_PROMPTS = 64
_POSITIONS = 4  # per prompt, the last ones: what the answer starts from
_LONGEST = 1024  # tokens; longer prompts lose their beginning
_BATCH = 16


class Divergence:
    """KL divergence of next-token distributions between references and the live model.

    The same 64 prompts at most, and the last 4 positions of each, for every candidate. What a
    reference predicts there is kept in the model's own dtype (exact), 2 bytes x 256 x vocabulary
    for bfloat16. Batches hold prompts of one length, so nothing is padded.

    Args:
        model: Live; its parameters may change between calls.
        tasks: Their prompts are sampled, the same ones at any time and on any machine.
        tokenizer: Of the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tasks: Sequence[PreparedTask],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._model = model
        tokens = [tokenizer(text)["input_ids"][-_longest(model) :] for text in _sample(tasks)]
        by_length = sorted((t for t in tokens if t), key=len)
        self._batches = [
            same[start : start + _BATCH]
            for same in (list(group) for _, group in groupby(by_length, key=len))
            for start in range(0, len(same), _BATCH)
        ]
        self._references: dict[str, list[torch.Tensor]] = {}

    def remember(self, reference: str) -> None:
        """Keep what the live model predicts now, under a name."""
        self._references[reference] = [logits.cpu() for logits in self._logits()]

    def measure(self, reference: str) -> MetricValue:
        """Compare the live model with a reference that was remembered.

        Returns:
            KL(reference || live) in nats per token, averaged over positions, then prompts; the
            standard error is over prompts.
        """
        per_prompt: list[float] = []
        for kept, logits in zip(self._references[reference], self._logits(), strict=True):
            ours = logits.float().log_softmax(-1)
            theirs = kept.to(ours.device).float().log_softmax(-1)
            each = (theirs.exp() * (theirs - ours)).sum(-1)  # (prompts, positions)
            per_prompt += each.mean(-1).tolist()
        n = len(per_prompt)
        if not all(map(math.isfinite, per_prompt)):  # of NaN logits, max() would make the best
            return MetricValue(math.nan, math.nan, n)
        stderr = stdev(per_prompt) / math.sqrt(n) if n > 1 else math.nan
        return MetricValue(max(0.0, fmean(per_prompt)), stderr, n)

    @torch.inference_mode()
    def _logits(self) -> Iterator[torch.Tensor]:
        """Yield (prompts, positions, vocabulary) per batch."""
        for batch in self._batches:
            ids = torch.tensor(batch, device=self._model.device)
            keep = min(_POSITIONS, ids.shape[1])
            yield self._model(input_ids=ids, logits_to_keep=keep).logits[:, -keep:]


def _longest(model: PreTrainedModel) -> int:
    return min(_LONGEST, getattr(model.config, "max_position_embeddings", None) or _LONGEST)


def _sample(tasks: Sequence[PreparedTask]) -> list[str]:
    """Choose distinct prompts: an answer to be scored is part of one, an answer to be made is not.

    Of an item, only its first request: choices share their prompt.
    """
    texts = {
        "".join(part for part in item.requests[0].args if isinstance(part, str)): None
        for task in tasks
        for item in task.items
    }
    prompts = list(texts)
    order = np.random.default_rng(seed_for(0, "kl prompts")).permutation(len(prompts))
    return [prompts[i] for i in order[:_PROMPTS]]
