"""How far a model's predictions are from a reference model's, on prompts of its own tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean, stdev

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.requests import PreparedTask, texts_alone
from evomerge.evaluation.scores import MetricValue
from evomerge.evaluation.teacher_forcing import checkpointed
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
        tasks: Their prompts are sampled, the same ones at any time and on any machine; without
            those that have images.
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
            per_prompt += _divergence(kept, logits).tolist()
        n = len(per_prompt)
        if not all(map(math.isfinite, per_prompt)):  # of NaN logits, max() would make the best
            return MetricValue(math.nan, math.nan, n)
        stderr = stdev(per_prompt) / math.sqrt(n) if n > 1 else math.nan
        return MetricValue(max(0.0, fmean(per_prompt)), stderr, n)

    @property
    def n_prompts(self) -> int:
        """Prompts that are looked at."""
        return sum(map(len, self._batches))

    def backward(
        self, reference: str, rows: Sequence[int], factor: float, settings: LossSettings
    ) -> float:
        """Run prompts forward and backward; gradients add up in the live model's parameters.

        Args:
            reference: One that was remembered.
            rows: Positions of prompts, from 0 to ``n_prompts - 1``, sorted; at least one.
            factor: What the gradients are multiplied with.
            settings: How passes are run.

        Returns:
            Their mean KL(reference || live), without the factor.
        """
        total = 0.0
        checkpointing = checkpointed(self._model, settings.checkpointing)
        with torch.enable_grad(), checkpointing:
            for batch, kept in self._parts(reference, rows, settings.n_tokens):
                loss = _divergence(kept, self._predicted(batch)).sum() / len(rows)
                (factor * loss).backward()
                total += float(loss.detach())
        return total

    def _parts(
        self, reference: str, rows: Sequence[int], n_tokens: int
    ) -> Iterator[tuple[list[list[int]], torch.Tensor]]:
        """Yield some prompts, of one length at a time, with what a reference predicts."""
        first = 0
        for batch, kept in zip(self._batches, self._references[reference], strict=True):
            own = [row - first for row in rows if first <= row < first + len(batch)]
            size = max(1, n_tokens // len(batch[0]))
            for start in range(0, len(own), size):
                part = own[start : start + size]
                yield [batch[i] for i in part], kept[part]
            first += len(batch)

    @torch.inference_mode()
    def _logits(self) -> Iterator[torch.Tensor]:
        """Yield (prompts, positions, vocabulary) per batch."""
        yield from map(self._predicted, self._batches)

    def _predicted(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        ids = torch.tensor(batch, device=self._model.device)
        keep = min(_POSITIONS, ids.shape[1])
        logits: torch.Tensor = self._model(input_ids=ids, logits_to_keep=keep).logits
        return logits[:, -keep:]


def _divergence(kept: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Compute (prompts,) KL(kept || live), the mean over the positions (prompts, positions, _)."""
    ours = logits.float().log_softmax(-1)
    theirs = kept.to(ours.device).float().log_softmax(-1)
    return (theirs.exp() * (theirs - ours)).sum(-1).mean(-1)


def _longest(model: PreTrainedModel) -> int:
    return min(_LONGEST, getattr(model.config, "max_position_embeddings", None) or _LONGEST)


def _sample(tasks: Sequence[PreparedTask]) -> list[str]:
    """Choose distinct prompts: an answer to be scored is part of one, an answer to be made is not.

    Of an item, only its first request: choices share their prompt.
    """
    texts = {
        "".join(part for part in item.requests[0].args if isinstance(part, str)): None
        for task in texts_alone(tasks)
        for item in task.items
    }
    prompts = list(texts)
    order = np.random.default_rng(seed_for(0, "kl prompts")).permutation(len(prompts))
    return [prompts[i] for i in order[:_PROMPTS]]
