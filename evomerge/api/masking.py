"""One merge with a mask per expert, and an expert made of it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.api.merging import RecipeSource, recipe_of, write_merge

if TYPE_CHECKING:
    from evomerge.masked.folder import WrittenMasks
    from evomerge.masked.kinds import MaskKind

__all__ = ["mask", "restore"]

_Progress = Callable[[int, int], None]
_RATIO = 0.4  # within what the paper chooses from, 0.2 to 0.6


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
    from evomerge.export.masks import export_masks
    from evomerge.masked.file import MASKS
    from evomerge.masked.folder import check_masks, kind_for
    from evomerge.merging.sources import Sources

    found = recipe_of(recipe)
    own = mask_ratio if isinstance(mask_ratio, Mapping) else {}
    for_all = _RATIO if isinstance(mask_ratio, Mapping) else mask_ratio
    ratios = {**dict.fromkeys(found.experts, for_all), **own}
    check_masks(found, Sources.of(found), ratios)
    (Path(out) / MASKS).unlink(missing_ok=True)  # of an earlier merge
    write_merge(found, Path(out), measuring=measuring, merging=merging)
    kind = by or kind_for(found)
    return export_masks(found, Path(out), by=kind, ratios=ratios, progress=masking)


def restore(
    folder: str | PathLike[str],
    expert: str,
    out: str | PathLike[str],
    *,
    writing: _Progress = lambda done, total: None,
) -> Path:
    """Write the model of one expert of a merge with masks.

    Args:
        folder: From ``mask``.
        expert: Whose mask is taken.
        out: Folder to write, as plain transformers loads it.
        writing: Called with (tensors done, tensors in all).

    Returns:
        ``out``.

    Raises:
        EvomergeError: There is no such mask; base or merge are others than those it was made of;
            or the folder cannot be written.
    """
    from evomerge.masked.restored import write_restored

    write_restored(Path(folder), expert, Path(out), progress=writing)
    return Path(out)
