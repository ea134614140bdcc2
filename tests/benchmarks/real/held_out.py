"""The held-out table: what was found, each parent, and merges that need no search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.analysis.intervals import Estimate
from evomerge.recipe.recipe import Recipe
from evomerge.study.records import Objective
from tests.benchmarks.real.scoring import Scorer
from tests.benchmarks.results import layout

__all__ = ["held_out_table"]


def held_out_table(
    scorer: Scorer, recipes: Mapping[str, Recipe], objectives: Sequence[Objective]
) -> str:
    """Score recipes on the test items.

    Args:
        scorer: Scores them, several at a time.
        recipes: By name; the first is what the others are held against.
        objectives: Columns.

    Returns:
        Markdown: values with standard errors, their mean, and by how much the first one's mean is
        above it, with the standard error of differences on the same items.
    """
    scorer.score(recipes.values(), "test")
    first, best = next(iter(recipes.items()))
    columns = ["model", *(f"`{o.task}`" for o in objectives), "mean", f"{first} leads by"]
    cells = []
    for name, recipe in recipes.items():
        lead = "" if recipe == best else _text(scorer.lead(best, recipe, "test"), "+")
        values = [*scorer.values(recipe, "test"), scorer.mean(recipe, "test")]
        cells.append([name, *map(_text, values), lead])
    return layout(columns, cells)


def _text(estimate: Estimate, sign: str = "") -> str:
    return f"{estimate.value:{sign}.3f} ± {estimate.stderr:.3f}"
