"""One merge with something kept per expert, and back; a mask that all experts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.merging import RecipeSource, recipe_of, write_merge
from evomerge.concrete.settings import MaskSettings
from evomerge.config.load import ExperimentSource, draft_of
from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.concrete.folder import LearnedMask
    from evomerge.masked.folder import WrittenMasks
    from evomerge.masked.kinds import MaskKind
    from evomerge.twins.folder import WrittenTwins

__all__ = ["learn_mask", "mask", "merge_twins", "restore"]

_Progress = Callable[[int, int], None]
_RATIO = 0.4  # within what the paper chooses from, 0.2 to 0.6


def learn_mask(
    experiment: ExperimentSource,
    out: str | PathLike[str],
    settings: MaskSettings | None = None,
    *,
    set: Sequence[str] = (),
    learning: _Progress = lambda done, total: None,
    writing: _Progress = lambda done, total: None,
) -> LearnedMask:
    """Learn a mask that all experts share, through the loss of their merge on search items.

    Args:
        experiment: A file, the name of a preset, its keys, or an experiment that is loaded; its
            models and objectives count.
        out: Folder to write: the mask, each expert under it as a model of its own, and the recipe
            of their merge.
        settings: How to learn; those of the authors' code.
        set: ``KEY=VALUE`` changes.
        learning: Called with (steps done, steps in all).
        writing: Called with (experts done, experts in all).

    Returns:
        The losses of the steps; the mask itself is in the folder.

    Raises:
        EvomergeError: The experiment or a setting is wrong, no objective has a slope, or the folder
            cannot be written.
    """
    from evomerge.runs.learned_mask import learn_mask as learn
    from evomerge.runs.loaded import Loaded

    loaded = Loaded.of(draft_of(experiment, set).complete())
    wanted = settings or MaskSettings()
    return learn(loaded, wanted, Path(out), learning=learning, writing=writing)


def mask(
    recipe: RecipeSource,
    out: str | PathLike[str],
    *,
    by: MaskKind | None = None,
    mask_ratio: float | Mapping[str, float] = _RATIO,
    measuring: _Progress = lambda done, total: None,
    merging: _Progress = lambda done, total: None,
    masking: _Progress = lambda done, total: None,
) -> WrittenMasks:
    """Write a merge with one mask of bits per expert beside it.

    Args:
        recipe: See ``merge``; it must have a base.
        out: Folder to write; the merge in it is a model like any other.
        by: ``tall`` or ``emr``; absent: ``emr`` for merges by method emr, else ``tall``.
        mask_ratio: Of ``tall``: the lower, the more of the merge an expert gets; by expert, or for
            all; experts that are not named have 0.4.
        measuring: See ``write_merge``.
        merging: See ``write_merge``.
        masking: Called with (tensors done, tensors in all), over all experts.

    Returns:
        The masks, and what they take.

    Raises:
        EvomergeError: The recipe is wrong or cannot have masks, or the folder cannot be written.
    """
    from evomerge.export.restorable import export_masks
    from evomerge.masked.folder import check_masks, kind_for
    from evomerge.merging.sources import Sources

    found = recipe_of(recipe)
    own = mask_ratio if isinstance(mask_ratio, Mapping) else {}
    for_all = _RATIO if isinstance(mask_ratio, Mapping) else mask_ratio
    ratios = {**dict.fromkeys(found.experts, for_all), **own}
    check_masks(found, Sources.of(found), ratios)
    write_merge(found, Path(out), measuring=measuring, merging=merging)
    kind = by or kind_for(found)
    return export_masks(found, Path(out), by=kind, ratios=ratios, progress=masking)


def merge_twins(
    recipe: RecipeSource,
    out: str | PathLike[str],
    *,
    rank_share: float | None = None,
    prompts: str | PathLike[str] | None = None,
    measuring: _Progress = lambda done, total: None,
    merging: _Progress = lambda done, total: None,
    comparing: _Progress = lambda done, total: None,
) -> WrittenTwins:
    """Write a merge with a low-rank difference per expert beside it, and a router (Twin-Merging).

    Args:
        recipe: See ``merge``.
        out: Folder to write; the merge in it is a model like any other.
        rank_share: Share of a matrix's rank that differences keep; 0.1.
        prompts: JSON lines with ``prompt`` and ``expert``, to which a router is fitted; absent:
            there is none.
        measuring: See ``write_merge``.
        merging: See ``write_merge``.
        comparing: Called with (tensors done, tensors in all), over all experts.

    Returns:
        What is kept, and what it takes.

    Raises:
        EvomergeError: The recipe is wrong or cannot have differences, a prompt says not which
            expert it is for, or the folder cannot be written.
    """
    from evomerge.export.restorable import export_twins
    from evomerge.merging.sources import Sources
    from evomerge.twins.folder import RANK_SHARE, check_twins
    from evomerge.twins.router import router_prompts

    found, share = recipe_of(recipe), RANK_SHARE if rank_share is None else rank_share
    examples = () if prompts is None else router_prompts(Path(prompts))
    check_twins(found, Sources.of(found), share, examples)
    write_merge(found, Path(out), measuring=measuring, merging=merging)
    return export_twins(found, Path(out), rank_share=share, prompts=examples, progress=comparing)


def restore(
    folder: str | PathLike[str],
    expert: str | Mapping[str, float],
    out: str | PathLike[str],
    *,
    writing: _Progress = lambda done, total: None,
) -> Path:
    """Write the model of one expert of a merge with masks or differences.

    Args:
        folder: From ``mask`` or ``merge_twins``.
        expert: Whose; of differences, also their weights by expert.
        out: Folder to write, as plain transformers loads it.
        writing: Called with (tensors done, tensors in all).

    Returns:
        ``out``.

    Raises:
        EvomergeError: There is no such mask or difference; base or merge are others than those it
            was made of; or the folder cannot be written.
    """
    from evomerge.export.restorable import write_restored_card
    from evomerge.masked.file import load_masks
    from evomerge.masked.restored import write_restored
    from evomerge.twins.file import TWINS
    from evomerge.twins.restored import write_weighted

    weights = {expert: 1.0} if isinstance(expert, str) else expert
    if (Path(folder) / TWINS).is_file():
        write_weighted(Path(folder), weights, Path(out), progress=writing)
        write_restored_card(Path(folder), weights, Path(out))
    elif isinstance(expert, str):
        write_restored(Path(folder), expert, Path(out), progress=writing)
        write_restored_card(Path(folder), weights, Path(out), [load_masks(Path(folder)).base])
    else:
        raise ConfigError(
            f"expected the name of one expert, as {folder} has masks, got weights {dict(expert)}"
        )
    return Path(out)
