"""Steps along slopes, fitted into the memory of a worker before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.config.experiment import ExecutionConfig
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.losses import Losses
from evomerge.evaluation.sloped_objectives import SlopedObjective
from evomerge.merging.candidate import output_dtype
from evomerge.merging.residency import common_residency, needed_on
from evomerge.merging.slopes import GRADIENT_BYTES
from evomerge.merging.sources import Sources
from evomerge.models.outline import model_outline
from evomerge.recipe.recipe import Dtype
from evomerge.runs.memory_plan import PROCESS_BYTES
from evomerge.runs.units import bytes_text
from evomerge.runs.workers import (
    devices_per_worker,
    worker_bytes,
    worker_count,
    worker_device,
)

__all__ = ["FittedSteps", "fitted_steps"]

# Padded tokens of a microbatch, and whether layers run again on the way back, which costs a third
# more time: the first that fits is taken. An item is never cut within a sequence.
_WAYS = ((4096, False), (1024, False), (4096, True), (1024, True), (256, True))


@dataclass(frozen=True)
class FittedSteps:
    """How steps are run on a worker.

    Attributes:
        settings: Of the losses.
        n_bytes: What a step takes beside the live model, at most.
        obstacle: Why no step fits, in one line; ``None`` if one does.
        hint: What to do then.
    """

    settings: LossSettings
    n_bytes: int
    obstacle: str | None = None
    hint: str = ""


def fitted_steps(
    sources: Sources,
    dtype: Dtype | None,
    objectives: Sequence[SlopedObjective],
    execution: ExecutionConfig,
    engine: EngineChoice | None = None,
) -> FittedSteps | None:
    """Choose how steps are run: the fastest way for which a worker has the memory.

    What counts is the memory that there is, not what is free at the moment: the same experiment on
    the same machine always runs the same way.

    Args:
        sources: The models.
        dtype: Of the live model; ``None`` takes the base's.
        objectives: With the items that are known before parents are asked.
        execution: How many workers share what.
        engine: How the live model runs; absent: as transformers sees fit.

    Returns:
        ``None`` for a model that nobody knows here.
    """
    own_dtype = output_dtype(sources, dtype)
    engine = engine or EngineChoice()
    model = model_outline(sources.anchor.config, own_dtype, engine.attention)
    if model is None:
        return None
    waiting = min(GRADIENT_BYTES, sum(p.nbytes for p in model.parameters()))
    n_items = max((len(objective.items) for objective in objectives), default=0)
    room = _room(sources, own_dtype, execution, engine.quantize)
    for n_tokens, checkpointing in _WAYS:
        settings = LossSettings(n_tokens=n_tokens, checkpointing=checkpointing)
        n_bytes = waiting + Losses(model, objectives, settings).step_bytes(n_items)
        if room is None or n_bytes <= room:
            return FittedSteps(settings, n_bytes)
    assert room is not None, "it is too small"
    text = (
        f"a step takes {bytes_text(n_bytes)} beside the live model, and "
        f"{_workers(execution)} {bytes_text(max(room, 0))} for it"
    )
    hint = _hint(n_bytes, sources, own_dtype, execution, engine.quantize)
    return FittedSteps(settings, n_bytes, text, hint)


def _room(
    sources: Sources, dtype: torch.dtype, execution: ExecutionConfig, quantize: str | None
) -> int | None:
    """What a worker has beside its live model, and on a GPU beside what may be resident there.

    Of several GPUs that of the fullest, as if the whole step were taken there.
    """
    total = worker_bytes(execution)
    if total is None:
        return None
    needed = needed_on(sources, dtype, devices_per_worker(execution), quantize)
    if worker_device(execution)[0] == "cpu":
        return total - needed[0].live_bytes - PROCESS_BYTES
    is_resident = common_residency("cuda", needed, [total] * len(needed)) == "resident"
    return min(total - n.live_bytes - n.source_bytes * is_resident for n in needed)


def _workers(execution: ExecutionConfig) -> str:
    n = worker_count(execution)
    return "the worker has" if n == 1 else f"each of {n} workers has"


def _hint(
    n_bytes: int,
    sources: Sources,
    dtype: torch.dtype,
    execution: ExecutionConfig,
    quantize: str | None,
) -> str:
    """Name what leaves a worker enough room; if nothing does, what makes a step smaller."""
    shares: dict[str, dict[str, float]] = {
        f"run fewer workers (--workers {n})": {"workers": n}
        for n in range(worker_count(execution) - 1, 0, -1)
    }
    shares["give each worker a whole GPU (gpus_per_worker: 1)"] = {"gpus_per_worker": 1}
    for hint, change in shares.items():
        room = _room(sources, dtype, execution.model_copy(update=change), quantize)
        if room is not None and room >= n_bytes:
            return hint
    smaller = "" if dtype.itemsize < 4 else " or models.dtype: bfloat16"
    return f"use shorter prompts (num_fewshot){smaller}"
