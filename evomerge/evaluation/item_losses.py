"""How wrong a model is about one item, smoothly: from what is read off its sequences to a loss.

A loss of an accuracy is the generalised cross-entropy (1 - p^q) / q of the probability p that the
model gives to what counts as right. At q = 1 it is one minus the expected accuracy, and stands
still where an answer is hopeless; towards q = 0 it becomes -log p, and the worst items decide.
Source: Zhang & Sabuncu 2018, arXiv:1805.07836.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch

__all__ = [
    "AnswerLoss",
    "ChoiceEntropy",
    "ChoiceLoss",
    "ItemLoss",
    "LossKind",
    "LossSettings",
    "SumLoss",
    "choice_log_probabilities",
    "generalised_cross_entropy",
]

LossKind = Literal["gold", "entropy"]


@dataclass(frozen=True)
class LossSettings:
    """How losses are made and run.

    Attributes:
        kind: ``gold`` looks at what is right; ``entropy`` at how sure the model is, whether right
            or wrong (Yang et al. 2024, AdaMerging, arXiv:2310.02575).
        q: See the module.
        n_tokens: Padded tokens of a microbatch; an item that takes more is run in parts.
        checkpointing: Whether layers are run again on the way back instead of keeping what they
            computed: less memory for a third more time.
    """

    kind: LossKind = "gold"
    q: float = 0.3
    n_tokens: int = 4096
    checkpointing: bool = False


def generalised_cross_entropy(log_p: torch.Tensor, q: float) -> torch.Tensor:
    """Compute (1 - p^q) / q of log-probabilities; -log p at q = 0."""
    return -torch.expm1(q * log_p) / q if q else -log_p


def choice_log_probabilities(readings: torch.Tensor, sizes: tuple[float, ...]) -> torch.Tensor:
    """Compute the log-probabilities of choices as a metric compares them.

    Args:
        readings: (..., choices) log-likelihoods, or (..., 2 choices): without the question, too,
            which counts against them.
        sizes: (choices,) what the log-likelihoods are divided by.

    Returns:
        (..., choices).
    """
    n = len(sizes)
    scores = readings[..., :n] - readings[..., n:] if readings.shape[-1] > n else readings
    return (scores / scores.new_tensor(sizes)).log_softmax(-1)


class ItemLoss(Protocol):
    """From the readings of an item to its loss; less is better.

    Equal ones do the same: items that have them are taken together.

    Attributes:
        is_linear: Whether the loss of all readings is the sum of the losses of each.
    """

    is_linear: ClassVar[bool]

    def __call__(self, readings: torch.Tensor) -> torch.Tensor:
        """Compute the losses (...) of (..., n) readings."""


@dataclass(frozen=True)
class ChoiceLoss:
    """The gold choice among choices.

    Attributes:
        sizes: What the metric divides the log-likelihoods by.
        gold: Which choices are right.
        q: See the module.
    """

    is_linear: ClassVar[bool] = False
    sizes: tuple[float, ...]
    gold: tuple[int, ...]
    q: float

    def __call__(self, readings: torch.Tensor) -> torch.Tensor:
        """See ``ItemLoss``."""
        right = choice_log_probabilities(readings, self.sizes)[..., list(self.gold)].logsumexp(-1)
        return generalised_cross_entropy(right, self.q)


@dataclass(frozen=True)
class ChoiceEntropy:
    """How undecided the model is among choices, in nats, right or wrong.

    Attributes:
        sizes: What the metric divides the log-likelihoods by.
    """

    is_linear: ClassVar[bool] = False
    sizes: tuple[float, ...]

    def __call__(self, readings: torch.Tensor) -> torch.Tensor:
        """See ``ItemLoss``."""
        log_p = choice_log_probabilities(readings, self.sizes)
        return -(log_p.exp() * log_p).sum(-1)


@dataclass(frozen=True)
class AnswerLoss:
    """One answer, teacher forced.

    Attributes:
        q: See the module.
    """

    is_linear: ClassVar[bool] = False
    q: float

    def __call__(self, readings: torch.Tensor) -> torch.Tensor:
        """See ``ItemLoss``."""
        return generalised_cross_entropy(readings.sum(-1), self.q)


@dataclass(frozen=True)
class SumLoss:
    """A sum of readings over a size: nats per byte of a text in windows, entropies per token.

    Attributes:
        size: What the sum is divided by; negative for readings of which more is better.
    """

    is_linear: ClassVar[bool] = True
    size: float

    def __call__(self, readings: torch.Tensor) -> torch.Tensor:
        """See ``ItemLoss``."""
        return readings.sum(-1) / self.size
