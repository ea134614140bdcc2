"""A merge with one mask per expert beside it, with its model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from evomerge.export.card import Findings, model_card
from evomerge.export.lineage import ancestors, parents
from evomerge.masked.folder import WrittenMasks, write_masks
from evomerge.masked.kinds import MaskKind
from evomerge.merging.sources import Sources
from evomerge.origins import SEARCH
from evomerge.recipe.recipe import Recipe

__all__ = ["export_masks"]


def export_masks(
    recipe: Recipe,
    out: Path,
    *,
    by: MaskKind,
    ratios: Mapping[str, float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> WrittenMasks:
    """Write the masks of a merge, and the card of both; see ``write_masks``."""
    written = write_masks(recipe, out, by=by, ratios=ratios, progress=progress)
    card = model_card(
        out.name,
        recipe,
        Findings(),
        descent=ancestors(parents(recipe, SEARCH)),
        parts=Sources.of(recipe).part_notes,
        masks=tuple(written.masks.experts),
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    return written
