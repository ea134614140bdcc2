"""A mask over task vectors, learned on the search items of an experiment (``concrete``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.cache import cache_folder
from evomerge.concrete.settings import MaskSettings
from evomerge.errors import ConfigError, EvaluationError, Fault
from evomerge.execution.costs import COST
from evomerge.fingerprint import digest_of
from evomerge.models.expert import content_digest
from evomerge.recipe.path import BASE

if TYPE_CHECKING:
    from evomerge.concrete.folder import LearnedMask
    from evomerge.evaluation.losses import Losses
    from evomerge.merging.candidate import LiveCandidate
    from evomerge.merging.sources import Sources
    from evomerge.runs.loaded import Loaded

__all__ = ["learn_mask"]

_Progress = Callable[[int, int], None]


def learn_mask(
    loaded: Loaded,
    settings: MaskSettings,
    out: Path,
    *,
    learning: _Progress = lambda done, total: None,
    writing: _Progress = lambda done, total: None,
) -> LearnedMask:
    """Learn a mask that all experts share, and write the experts under it.

    The loss is that of the experiment's objectives on its search items; costs, and objectives
    without slopes, are left out. What was learned of the very same in this folder is taken.

    Args:
        loaded: A checked experiment.
        settings: How to learn.
        out: Folder to write.
        learning: Called with (steps done, steps in all).
        writing: Called with (experts done, experts in all).

    Raises:
        ConfigError: A setting is wrong, or models cannot be put under a mask.
        EvaluationError: No objective has a slope, or a loss is not finite.
        CheckpointError: A model holds NaN or infinity, or the folder cannot be written.
    """
    import torch

    from evomerge.concrete.folder import kept_mask, mask_faults, write_masked
    from evomerge.merging.candidate import LiveCandidate
    from evomerge.merging.sources import Sources

    sources = Sources.of(loaded.models, cache_folder("experts"))
    if faults := [*settings.faults(), *mask_faults(sources, out)]:
        raise ConfigError(*faults)
    sources.check_finite()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    candidate = LiveCandidate(sources, loaded.models.dtype, device)
    losses = _losses(loaded, sources, candidate, settings)
    digest = _digest(sources, losses, settings, candidate)
    found = kept_mask(out, digest)
    if found is None:
        found = _learned(sources, candidate, losses, settings, out, digest, learning)
    del candidate
    write_masked(out, sources, loaded.models.base, settings, progress=writing)
    return found


def _learned(
    sources: Sources,
    candidate: LiveCandidate,
    losses: Losses,
    settings: MaskSettings,
    out: Path,
    digest: str,
    progress: _Progress,
) -> LearnedMask:
    from evomerge.concrete.folder import write_mask
    from evomerge.concrete.learning import MaskLearner
    from evomerge.evaluation.hygiene import clean_harness

    learner = MaskLearner(sources, candidate, losses, settings)
    with clean_harness():
        found = learner.learn(progress)
    shapes = {name: tuple(tensor.shape) for name, tensor in candidate.tensors.items()}
    return write_mask(out, digest, found, shapes, learner.mask)


def _losses(
    loaded: Loaded, sources: Sources, candidate: LiveCandidate, settings: MaskSettings
) -> Losses:
    """Prepare the losses of the experiment's objectives on its search items."""
    from transformers import AutoTokenizer

    from evomerge.evaluation.item_losses import LossSettings
    from evomerge.evaluation.prepared import PreparedSuites
    from evomerge.evaluation.transformers_engine import TransformersEngine

    spec = loaded.worker
    objectives = [(task, metric) for task, metric in spec.objectives if task != COST]
    prepared = PreparedSuites(
        loaded.tasks.prompted("search"),
        candidate.model,
        AutoTokenizer.from_pretrained(sources.anchor.companions),
        make_engine=partial(TransformersEngine, reading=spec.engine.reading),
    )

    def parents() -> Iterator[None]:
        for parent in (BASE, *spec.experts):
            candidate.materialise(spec.parent_recipe(parent))
            yield

    kind = replace(spec.losses or LossSettings(), kind=settings.loss)
    found = prepared.losses(objectives, kind, parents)
    if not any(found.n_items):
        named = zip(objectives, found.reasons, strict=True)
        faults = [Fault((), f"{t} {m} has no slope: {reason}") for (t, m), reason in named]
        raise EvaluationError(*(faults or [Fault(("objectives",), "expected one of a task")]))
    return found


def _digest(
    sources: Sources, losses: Losses, settings: MaskSettings, candidate: LiveCandidate
) -> str:
    """Name all that a mask depends on."""
    items = [
        [repr((item.readings, item.loss, item.share)) for item in losses.items(k)]
        for k in range(len(losses.n_items))
    ]
    models = [content_digest(model) for model in sources.models]
    device = candidate.model.device.type
    return digest_of(
        "concrete", models, str(candidate.model.dtype), device, asdict(settings), items
    )
