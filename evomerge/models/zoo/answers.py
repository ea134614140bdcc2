"""Training on answers alone: the prompt carries no loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

__all__ = ["answer_loss", "padded"]

_IGNORED = -100


def padded(
    prompts: Sequence[list[int]], answers: Sequence[list[int]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out token ids and labels, both (items, longest) int64, padded at the right.

    Args:
        prompts: Token ids, by item.
        answers: Those that follow; labels are of these only.
        pad: Token id of the padding.
    """
    pairs = list(zip(prompts, answers, strict=True))
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    tokens = torch.full((len(pairs), longest), pad)
    labels = torch.full((len(pairs), longest), _IGNORED)
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return tokens, labels


def answer_loss(
    model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Compute the mean cross-entropy of answer tokens, a float32 scalar, from ``padded`` items.

    Logits are worked out for answers alone: the head is a large part of a small model.
    """
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    answered = targets != _IGNORED
    return functional.cross_entropy(model.lm_head(hidden[answered]).float(), targets[answered])
