"""A merge with what experts come back from beside it, with its model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evomerge.export.card import Findings, model_card
from evomerge.export.lineage import ancestors, parents
from evomerge.masked.folder import WrittenMasks, write_masks
from evomerge.masked.kinds import MaskKind
from evomerge.merging.sources import Sources
from evomerge.observation.examples import Example
from evomerge.origins import SEARCH
from evomerge.recipe.recipe import Recipe
from evomerge.twins.folder import WrittenTwins, write_twins

__all__ = ["export_masks", "export_twins"]

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
    _write_card(recipe, out, {"masks": tuple(written.masks.experts)})
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
    _write_card(recipe, out, {"low-rank differences": written.experts})
    return written


def _write_card(recipe: Recipe, out: Path, beside: Mapping[str, Sequence[str]]) -> None:
    card = model_card(
        out.name,
        recipe,
        Findings(),
        descent=ancestors(parents(recipe, SEARCH)),
        parts=Sources.of(recipe).part_notes,
        beside=beside,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
