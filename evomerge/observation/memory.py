"""How much memory observing takes, reckoned without loading a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from evomerge.evaluation.step_memory import pass_bytes
from evomerge.evaluation.teacher_forcing import Piece, Reading
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.outline import model_outline
from evomerge.models.structure import empty_model
from evomerge.observation.blocks import largest_block
from evomerge.observation.kinds import OBSERVATIONS, ObservationName

__all__ = ["kept_bytes", "observation_bytes"]


def kept_bytes(
    checkpoint: Checkpoint, dtype: torch.dtype, kinds: Collection[ObservationName]
) -> int:
    """Tell what is kept on disk of one model; 0 where transformers has no such model."""
    model = empty_model(checkpoint.config, dtype)
    if model is None:
        return 0
    forms = (OBSERVATIONS[kind].forms(model, checkpoint.names) for kind in kinds)
    return sum(form.nbytes for some in forms for form in some.values())


def observation_bytes(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    kinds: Collection[ObservationName],
    readings: Sequence[Reading],
    held: int = 0,
) -> int:
    """Reckon the peak memory of observing a model, from above.

    Args:
        checkpoint: The model.
        dtype: That it is loaded in.
        kinds: What is observed, one after another.
        readings: The examples, at least one.
        held: Bytes of sums that are not cut into blocks.

    Returns:
        Bytes: the model, the sums of one block, and what its longest example takes on the way
        forward and back; 0 where transformers has no such model.
    """
    outline, model = model_outline(checkpoint.config, dtype), empty_model(checkpoint.config, dtype)
    if outline is None or model is None:
        return 0
    blocks = [largest_block(OBSERVATIONS[kind].forms(model, checkpoint.names)) for kind in kinds]
    longest = max(readings, key=lambda reading: len(reading.tokens))
    step = pass_bytes(outline, [Piece((longest,), torch.sum)], checkpointing=False)
    return sum(parameter.nbytes for parameter in outline.parameters()) + max([*blocks, held]) + step
