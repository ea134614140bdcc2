"""Cards of merges that no search found, with what experts come back from, and of such experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evomerge.export.card import Findings, model_card
from evomerge.export.lineage import ancestors, parents
from evomerge.export.made import write_card
from evomerge.masked.folder import WrittenMasks, write_masks
from evomerge.masked.kinds import MaskKind
from evomerge.merging.finite import NonFinite
from evomerge.merging.sources import Sources
from evomerge.models.reference import ModelRef, public_reference
from evomerge.observation.examples import Example
from evomerge.origins import SEARCH
from evomerge.recipe.recipe import Recipe
from evomerge.schema import write_yaml
from evomerge.twins.folder import WrittenTwins, write_twins

__all__ = ["export_masks", "export_twins", "write_merge_card", "write_restored_card"]

_Progress = Callable[[int, int], None]


def export_masks(
    recipe: Recipe,
    out: Path,
    *,
    by: MaskKind,
    ratios: Mapping[str, float],
    progress: _Progress = lambda done, total: None,
) -> WrittenMasks:
    """Write the masks of a merge, and the card of both; see ``write_masks``."""
    written = write_masks(recipe, out, by=by, ratios=ratios, progress=progress)
    write_merge_card(recipe, out, beside={"masks": tuple(written.masks.experts)})
    return written


def export_twins(
    recipe: Recipe,
    out: Path,
    *,
    rank_share: float,
    prompts: Sequence[Example],
    progress: _Progress = lambda done, total: None,
) -> WrittenTwins:
    """Write the differences of a merge, and the card of both; see ``write_twins``."""
    written = write_twins(recipe, out, rank_share=rank_share, prompts=prompts, progress=progress)
    write_merge_card(recipe, out, beside={"low-rank differences": written.experts})
    return written


def write_merge_card(
    recipe: Recipe,
    out: Path,
    *,
    non_finite: NonFinite | None = None,
    beside: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the card of a merge whose scores nobody knows.

    Args:
        recipe: What was merged.
        out: Its folder, complete.
        non_finite: What is not finite in it.
        beside: See ``model_card``.

    Raises:
        CheckpointError: A model is not where it was.
    """
    card = model_card(
        out.name,
        recipe,
        Findings(),
        descent=ancestors(parents(recipe, SEARCH)),
        non_finite=non_finite,
        parts=Sources.of(recipe).part_notes,
        beside=beside,
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def write_restored_card(
    folder: Path, weights: Mapping[str, float], out: Path, others: Sequence[ModelRef] = ()
) -> None:
    """Write the card of an expert's model, or of several experts', made of what was kept of them.

    Args:
        folder: The merge with masks or differences.
        weights: By expert; 1 for one alone is that expert.
        out: Its folder, complete.
        others: Models that it is made of beside the merge.

    Raises:
        CheckpointError: A model is not where it was.
    """
    place = str(folder.resolve())
    shown = {"folder": public_reference(place), "weights": dict(weights)}
    references = [place, *others]
    text = write_yaml(shown)
    write_card(out, "restored", references, tags=["merge"], recipe=text, details=shown)
