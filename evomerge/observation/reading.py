"""Examples as the tokens that a model reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.errors import CheckpointError
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.teacher_forcing import Reading
from evomerge.models.outline import load_tokenizer, plain_config
from evomerge.models.structure import class_fault
from evomerge.observation.examples import Example

if TYPE_CHECKING:
    from evomerge.models.checkpoint import Checkpoint

__all__ = ["Tokenised", "tokenised"]


@dataclass(frozen=True)
class Tokenised:
    """Examples as tokens.

    Attributes:
        readings: One per example.
        max_length: Longest sequence the model takes.
    """

    readings: tuple[Reading, ...]
    max_length: int


def tokenised(examples: Iterable[Example], checkpoint: Checkpoint) -> Tokenised:
    """Tokenise examples as prompts are; of a text longer than the context, the beginning.

    Args:
        examples: What is read.
        checkpoint: The model whose tokenizer it is.

    Raises:
        CheckpointError: It is no causal language model that transformers knows, or has no
            tokenizer.
        EvaluationError: An answer has no tokens.
    """
    folder, config = checkpoint.companions, plain_config(checkpoint.config)
    if reason := class_fault(checkpoint.config):
        raise CheckpointError(f"{folder}: {reason}")
    if config is None:
        raise CheckpointError(
            f"expected {folder} to be of a type that transformers knows, to run it on prompts, got "
            f"{checkpoint.config.get('model_type')!r}; upgrade transformers"
        )
    with clean_harness():
        lm = LanguageModel.without_parameters(load_tokenizer(folder), config)
        readings = tuple(_reading(one, lm) for one in examples)
        return Tokenised(readings, int(lm.lm.max_length))


def _reading(example: Example, lm: LanguageModel) -> Reading:
    context, continuation = (
        lm.windows(example.prompt)[0]
        if example.answer is None
        else lm.pair(example.prompt, example.answer)
    )
    return Reading(tuple(context), tuple(continuation))
