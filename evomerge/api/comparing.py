"""How the experts of an experiment relate, and what a study over them has measured already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.cache import cache_folder
from evomerge.config.experiment import Experiment
from evomerge.config.load import ExperimentSource, draft_of

if TYPE_CHECKING:
    from evomerge.analysis.interference import Comparison
    from evomerge.analysis.retrieval import Retrieval
    from evomerge.runs.barriers import Barrier

__all__ = ["compare", "compare_answers", "compare_losses", "measured_advice"]


def compare(
    experiment: ExperimentSource,
    set: Sequence[str] = (),
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Measure how far the experts moved, and how much they get in one another's way.

    Args:
        experiment: A file, the name of a preset, its keys, or an experiment that is loaded.
        set: ``KEY=VALUE`` changes.
        progress: Called with (elements done, elements in all).

    Returns:
        Norms, cosines and conflicts, of each part of the model and of all of it.

    Raises:
        EvomergeError: The experiment is wrong, or its models are missing or hold NaN.
    """
    from evomerge.merging.sources import Sources
    from evomerge.runs.compare import compare_experts

    models = draft_of(experiment, set).complete().models
    sources = Sources(
        models.base,
        models.experts,
        shared=cache_folder("experts"),
        tokenizer=models.tokenizer,
        parts=models.parts,
    )
    return compare_experts(sources, progress)


def compare_losses(
    experiment: ExperimentSource,
    set: Sequence[str] = (),
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Barrier, ...]:
    """Measure how the loss on search items rises between every two of base and experts.

    Args:
        experiment: See ``compare``.
        set: See ``compare``.
        progress: Called with (models run, models in all).

    Returns:
        A barrier for each pair; see ``runs.barriers.barriers`` for what it costs.

    Raises:
        EvomergeError: The experiment is wrong, or its models are missing.
    """
    from evomerge.merging.sources import Sources
    from evomerge.runs.barriers import search_barriers
    from evomerge.runs.loaded import Loaded

    loaded = Loaded.of(draft_of(experiment, set).complete())
    sources = Sources.of(loaded.models, cache_folder("experts"))
    return search_barriers(loaded, sources, progress)


def compare_answers(
    experiment: ExperimentSource,
    set: Sequence[str] = (),
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Retrieval:
    """Rank the experts, a pool to choose from, by what they answer on search items.

    Args:
        experiment: See ``compare``.
        set: See ``compare``.
        progress: Called with (models run, models in all).

    Returns:
        How well every model fits every task, whom to take first, and who knows the same. Cost:
        base and experts are run over 32 prompts of each task.

    Raises:
        EvomergeError: The experiment is wrong, or its models are missing.
    """
    from evomerge.merging.sources import Sources
    from evomerge.runs.loaded import Loaded
    from evomerge.runs.retrieval import search_retrieval

    loaded = Loaded.of(draft_of(experiment, set).complete())
    sources = Sources.of(loaded.models, cache_folder("experts"))
    return search_retrieval(loaded, sources, progress)


def measured_advice(experiment: Experiment, folder: Path) -> str | None:
    """Say what the seeds of a study over the same models scored, if there is one.

    Args:
        experiment: Resolved.
        folder: Where the study may be.
    """
    from evomerge.analysis.seeded import seeds_advice, space_warning
    from evomerge.runs.reading import read_study, stage_studies
    from evomerge.runs.stored import read_experiment
    from evomerge.study.folder import StudyFolder

    if not StudyFolder(folder).experiment.is_file():
        return None
    first = stage_studies(StudyFolder(folder))[0]  # over these experts alone
    if read_experiment(first).models.located() != experiment.models.located():
        return None
    study = read_study(first)
    said = [seeds_advice(study), space_warning(study, _methods(experiment))]
    return " ".join(filter(None, said)) or None


def _methods(experiment: Experiment) -> set[str]:
    """The methods that a space of rules names; none of a space that has no one method."""
    space = experiment.search_space
    method = space.get("method") if isinstance(space, dict) else None
    return {method} if isinstance(method, str) else set()
