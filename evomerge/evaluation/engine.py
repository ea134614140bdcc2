"""The seam to whatever runs the model: prompts are prepared once, answered for every candidate.

To add an engine, write a ``Runner`` (``kinds.py``), give it the members of ``Engine``, and hand
it to ``PreparedSuites`` as ``make_engine``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from evomerge.evaluation.harness import Instance
from evomerge.evaluation.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Answer", "Engine", "PreparedRequests", "device_name"]


def device_name(device: torch.device | str) -> str:
    """Name what a model runs on: floats differ between devices of different names."""
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return torch.device(device).type


@dataclass(frozen=True)
class Answer:
    """What a model said to one request, and what that cost.

    Attributes:
        response: In lm-eval's form: text, a log-likelihood with whether greedy decoding yields the
            continuation, or the log-likelihood of a whole text.
        tokens: Tokens generated, or scored.
        seconds: Its share of the time of its forward passes.
        reasoning: What was said before the answer; it is not scored.
        is_truncated: Whether the answer was cut off by its length, or the reasoning never ended.
    """

    response: object
    tokens: int
    seconds: float
    reasoning: str = ""
    is_truncated: bool = False

    @property
    def text(self) -> str:
        """Everything that was said, where that is text."""
        return f"{self.reasoning}{self.response}"


class PreparedRequests(Protocol):
    """Requests that an engine has tokenised and batched; one caller at a time."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the same model gives the same answers again, in any batch."""

    def run(self) -> list[list[Answer]]:
        """Answer every request with the model as it is now.

        Returns:
            For each instance, in the order given to ``prepare``, one answer per repeat.
        """


class Engine(Protocol):
    """Runs one live model; its parameters may change in place between calls."""

    @property
    def language_model(self) -> LanguageModel:
        """The model as lm-eval sees it: its tokenizer, chat template and context."""

    @property
    def sloped_model(self) -> PreTrainedModel | None:
        """The model that answers, if slopes can be taken through it."""

    @property
    def arithmetic(self) -> Sequence[object]:
        """What decides over the last digits beside the model, for a digest: device and batches."""

    def prepare(self, instances: Sequence[Instance]) -> PreparedRequests:
        """Do once what does not depend on the parameters.

        Raises:
            EvaluationError: A request cannot be answered, e.g. has nothing to score.
        """
