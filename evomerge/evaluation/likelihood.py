"""Log-likelihoods of prepared batches under a live model."""

from __future__ import annotations

import inspect
import time
from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from evomerge.evaluation.batches import Batch, Target
from evomerge.evaluation.cached import select_rows
from evomerge.evaluation.engine import Answer
from evomerge.evaluation.prefix import Family, PrefixCache
from evomerge.evaluation.shared_context import SharedBatch

__all__ = ["log_likelihoods"]

_Batches = Sequence[Batch | SharedBatch]


@torch.no_grad()
def log_likelihoods(
    model: PreTrainedModel, batches: Sequence[tuple[Family, _Batches]], n: int
) -> list[Answer]:
    """Score every request, computing logits only where they are read.

    Args:
        model: A causal language model.
        batches: Of each family, without its prefix; together they hold every request once.
        n: Number of requests.

    Returns:
        Answers with (log-likelihood, whether greedy decoding yields the continuation).
    """
    answers: dict[int, Answer] = {}
    for family, own in batches:
        answers |= _answers(model, family, own)
    return [answers[i] for i in range(n)]


def _answers(model: PreTrainedModel, family: Family, batches: _Batches) -> dict[int, Answer]:
    """Answers by request; all of them pay for the prefix."""
    answers: dict[int, Answer] = {}
    prefix = PrefixCache(model, family.prefix)
    share = prefix.seconds / len(family.requests)
    for batch in batches:
        start = time.perf_counter()
        found = _read(batch.targets, _log_probs(model, batch, prefix))
        seconds = (time.perf_counter() - start) / len(found) + share
        for request, response, tokens in found:
            answers[request] = Answer(response, tokens, seconds)
    return answers


def _log_probs(
    model: PreTrainedModel, batch: Batch | SharedBatch, prefix: PrefixCache
) -> torch.Tensor:
    """(rows, vocabulary), in the dtype of the logits, like lm-eval."""
    if isinstance(batch, Batch):
        return _logits(model, batch, prefix).log_softmax(dim=-1)
    return _shared(model, batch, prefix).log_softmax(dim=-1)


def _logits(model: PreTrainedModel, batch: Batch, prefix: PrefixCache) -> torch.Tensor:
    """(rows, vocabulary) logits; most models can leave out the other positions."""
    can_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
    options: dict[str, object] = {"logits_to_keep": batch.keep} if can_keep else {}
    if prefix.length:
        options["past_key_values"] = prefix.copies(len(batch.tokens))
    logits: torch.Tensor = model(batch.tokens, use_cache=prefix.length > 0, **options).logits
    sequence, position = batch.reads
    return logits[:, -batch.keep :][sequence, position]


def _shared(model: PreTrainedModel, batch: SharedBatch, prefix: PrefixCache) -> torch.Tensor:
    """(contexts + rows, vocabulary) logits: after each context, then inside the continuations."""
    cache, mask, positions = prefix.before(batch.context_mask)
    after_contexts: torch.Tensor = model(
        batch.contexts,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    if not batch.continuations.shape[1]:
        return after_contexts
    select_rows(cache, batch.owners)
    steps = torch.arange(batch.continuations.shape[1], device=mask.device)
    sequence, position = batch.reads
    inside = model(
        batch.continuations,
        attention_mask=torch.cat([mask[batch.owners], torch.ones_like(batch.continuations)], -1),
        position_ids=mask.sum(-1)[batch.owners, None] + steps,
        past_key_values=cache,
        use_cache=True,
    ).logits[sequence, position]
    return torch.cat([after_contexts, inside])


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
