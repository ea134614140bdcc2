"""What answers are taken to be where gradients are asked for, and how likely they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from evomerge.evaluation.teacher_forcing import Reading, predictions
from evomerge.seeds import seed_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LABELS", "LabelKind", "log_likelihood"]

LabelKind = Literal["sampled", "gold"]
LABELS: tuple[LabelKind, ...] = ("sampled", "gold")


def log_likelihood(
    model: PreTrainedModel, reading: Reading, max_length: int, labels: LabelKind, *, example: int
) -> torch.Tensor:
    """Run a model on one example.

    ``gold`` labels are the tokens of the answer itself. ``sampled`` ones are drawn from what the
    model predicts after each of the tokens before, one draw for each token of the answer; then the
    squared gradient is, in expectation, the diagonal of the Fisher information of the predictions.

    Args:
        model: A causal language model.
        reading: The example.
        max_length: See ``read``.
        labels: Which.
        example: Its number, which names the draws.

    Returns:
        The sum of the labels' log-probabilities in nats, a scalar with its graph.
    """
    (target,), log_p = predictions(model, [reading], max_length)
    rows, tokens = target.greedy_positions, target.tokens[-len(target.greedy_positions) :]
    own = log_p[rows.to(log_p.device)]
    if labels == "sampled":
        generator = torch.Generator().manual_seed(seed_for(0, "label", example))
        chances = own.detach().double().exp().cpu()
        tokens = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return own.gather(1, tokens[:, None].to(own.device)).sum()
