"""Log-likelihoods of prepared batches under a live model."""

from __future__ import annotations

import inspect
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from evomerge.evaluation.batches import Batch, Target
from evomerge.evaluation.engine import Answer
from evomerge.evaluation.shared_context import SharedBatch

__all__ = ["log_likelihoods"]


@torch.no_grad()
def log_likelihoods(
    model: PreTrainedModel, batches: Sequence[Batch | SharedBatch], n: int
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
        logits = _logits(model, batch) if isinstance(batch, Batch) else _shared(model, batch)
        found = _read(batch.targets, logits.log_softmax(dim=-1))  # in their dtype, like lm-eval
        seconds = (time.perf_counter() - start) / len(found)
        for request, response, tokens in found:
            answers[request] = Answer(response, tokens, seconds)
    return [answers[i] for i in range(n)]


def _logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """(rows, vocabulary) logits; most models can leave out the other positions."""
    can_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
    options = {"logits_to_keep": batch.keep} if can_keep else {}
    logits: torch.Tensor = model(batch.tokens, use_cache=False, **options).logits
    sequence, position = batch.reads
    return logits[:, -batch.keep :][sequence, position]


def _shared(model: PreTrainedModel, batch: SharedBatch) -> torch.Tensor:
    """(contexts + rows, vocabulary) logits: after each context, then inside the continuations."""
    cache, mask = DynamicCache(config=model.config), batch.context_mask
    after_contexts = model(
        batch.contexts,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    cache.batch_select_indices(batch.owners)
    steps = torch.arange(batch.continuations.shape[1], device=mask.device)
    logits = model(
        batch.continuations,
        attention_mask=torch.cat([mask[batch.owners], torch.ones_like(batch.continuations)], -1),
        position_ids=mask.sum(-1)[batch.owners, None] + steps,
        past_key_values=cache,
        use_cache=True,
    ).logits
    sequence, position = batch.reads
    return torch.cat([after_contexts, logits[sequence, position]])


def _read(
    everything: Sequence[Target], log_probs: torch.Tensor
) -> list[tuple[int, tuple[float, bool], int]]:
    """Request, response and scored tokens; continuations of one length are summed together."""
    likeliest = log_probs.argmax(dim=-1)
    by_length = defaultdict(list)
    for target in everything:
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
