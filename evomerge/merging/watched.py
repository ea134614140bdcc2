"""One model, loaded to be watched while it reads prompts."""

from __future__ import annotations

from collections.abc import Iterable

from evomerge.merging.candidate import load_model
from evomerge.merging.spread import to_gpu
from evomerge.models.checkpoint import Checkpoint, model_dtype
from evomerge.observation.examples import Example
from evomerge.observation.observer import Observer
from evomerge.observation.reading import tokenised

__all__ = ["N_PROMPTS", "watched"]

N_PROMPTS = 256
"""How many prompts of a file are read where nobody says how many, from its start."""


def watched(
    model: Checkpoint, names: tuple[str, ...], examples: Iterable[Example], *, like: Checkpoint
) -> Observer:
    """Load a model, on a GPU where there is one.

    Args:
        model: Its files.
        names: Its tensors that matter.
        examples: What it reads.
        like: Whose tokenizer and dtype it has.

    Raises:
        CheckpointError: It cannot be run, or has no tokenizer.
    """
    read = tokenised(examples, like)
    live = load_model(str(model.folder), model_dtype(like, like.names))
    to_gpu(live)
    return Observer(live, names, read.readings, read.max_length)
