"""Log-likelihoods of prepared batches under a live model."""

from __future__ import annotations

import inspect
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from evomerge.evaluation.batches import Batch
from evomerge.evaluation.engine import Answer

__all__ = ["log_likelihoods"]


@torch.no_grad()
def log_likelihoods(
    model: PreTrainedModel, batches: Sequence[Batch], n: int
) -> list[Answer]:
    """Score every request, computing logits only where they are read.

    Args:
        model: A causal language model.
        batches: Together they hold every request once.
        n: Number of requests.

    Returns:
        Answers with (log-likelihood, whether greedy decoding yields the continuation).
    """
    answers: dict[int, Answer] = {}
    for batch in batches:
        start = time.perf_counter()
        sequence, position = batch.reads
        logits = _last_logits(model, batch)[sequence, position]
        found = _read(batch, torch.log_softmax(logits, dim=-1))  # in their dtype, like lm-eval
        seconds = (time.perf_counter() - start) / len(found)
        for request, response, tokens in found:
            answers[request] = Answer(response, tokens, seconds)
    return [answers[i] for i in range(n)]


def _last_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """(sequences, keep, vocabulary) logits; most models can leave out the rest."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits: torch.Tensor = model(
            batch.tokens, use_cache=False, logits_to_keep=batch.keep
        ).logits
        return logits
    return model(batch.tokens, use_cache=False).logits[:, -batch.keep :]


def _read(
    batch: Batch, log_probs: torch.Tensor
) -> list[tuple[int, tuple[float, bool], int]]:
    """Request, response and scored tokens; continuations of one length are summed together."""
    likeliest = log_probs.argmax(dim=-1)
    by_length = defaultdict(list)
    for target in batch.targets:
        by_length[len(target.tokens)].append(target)
    found = []
    for length, targets in by_length.items():
        tokens = torch.stack([target.tokens for target in targets])
        rows = torch.stack([target.positions for target in targets])
        greedy = torch.stack([target.greedy_positions for target in targets])
        sums = log_probs[rows, tokens].sum(dim=-1)
        exact = (likeliest[greedy] == tokens).all(dim=-1)
        found += [
            (target.request, (value, same), length)
            for target, value, same in zip(targets, sums.tolist(), exact.tolist(), strict=True)
        ]
    return found
