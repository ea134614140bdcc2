"""Export one trial of a study: model folder, recipe, or mergekit YAML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.suite import Suite
from evomerge.export.card import model_card
from evomerge.export.findings import collect_findings
from evomerge.export.lineage import ancestors, parents
from evomerge.export.rescored import Rescored, rescored
from evomerge.export.rounding import fold_error
from evomerge.merging.candidate import output_dtype
from evomerge.merging.folder import SHARD_BYTES, write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.recipe.files import dump_recipe, stored_recipe
from evomerge.recipe.recipe import Dtype, Recipe
from evomerge.study.records import StudyRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CheckpointForm", "export_model", "export_text"]


@dataclass(frozen=True)
class CheckpointForm:
    """How a folder is written.

    Attributes:
        dtype: Of its tensors; ``None``: the trial's.
        shard_bytes: Largest size of one file.
        allow_non_finite: See ``write_checkpoint``.
    """

    dtype: Dtype | None = None
    shard_bytes: int = SHARD_BYTES
    allow_non_finite: bool = False


def export_model(
    study: StudyRecord,
    trial: TrialRecord,
    out: Path,
    suites: Sequence[Suite],
    progress: Callable[[int, int], None] | None = None,
    *,
    rungs: Sequence[float] = (),
    items: pd.DataFrame | None = None,
    engine: EngineChoice | None = None,
    form: CheckpointForm | None = None,
) -> Rescored:
    """Write a trial as a Hugging Face folder with recipe and model card, and score it again.

    The card of one that was in no finals quotes the scores of the folder on the test items, and on
    the tasks that are only reported.

    Args:
        study: Where the trial is from.
        trial: A complete trial.
        out: Folder to write.
        suites: The study's task suites.
        progress: Called with (tensors done, tensors in all).
        rungs: Of the study's races.
        items: Of the study, as ``ItemStore.read`` returns them: without them the card says nothing
            of what was forgotten.
        engine: Of the study; absent: transformers, by which the folder is scored in any case.
        form: How the folder is written.

    Raises:
        CheckpointError: The folder cannot be written, or would hold NaN or infinity.
    """
    form = form or CheckpointForm()
    stored = stored_recipe(trial.recipe, trial.number)
    recipe = replace(stored, dtype=form.dtype or stored.dtype)
    non_finite = write_checkpoint(
        recipe,
        out,
        shard_bytes=form.shard_bytes,
        progress=progress,
        allow_non_finite=form.allow_non_finite,
    )
    folding = fold_error(recipe, out) if any(hop.scale != 1 for hop in recipe.path) else None
    findings, again = collect_findings(
        out, study, trial, suites, rungs=rungs, items=items, engine=engine
    )
    card = model_card(
        out.name,
        recipe,
        findings,
        origin=trial.origin,
        descent=ancestors(parents(recipe, trial.origin)),
        folding=folding,
        non_finite=non_finite,
        parts=Sources.of(recipe).part_notes,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    return replace(
        rescored(study, trial, again),
        folding=folding,
        is_same_engine=engine is None or engine.name == "transformers",
        non_finite=non_finite,
        is_same_dtype=form.dtype is None or form.dtype == _dtype_name(stored),
    )


def _dtype_name(recipe: Recipe) -> str:
    """Name the dtype that candidates of a recipe have."""
    if recipe.dtype is not None:
        return recipe.dtype
    return str(output_dtype(Sources.of(recipe), None)).removeprefix("torch.")


def export_text(trial: TrialRecord, format: str, out: Path) -> str:
    """Write a trial as YAML.

    Args:
        trial: A trial with a recipe.
        format: ``recipe`` or ``mergekit``.
        out: The file to be; model folders are named from where it lies.

    Raises:
        RecipeError: mergekit cannot express the recipe.
    """
    recipe = stored_recipe(trial.recipe, trial.number)
    if format == "mergekit":
        from evomerge.recipe.mergekit import to_mergekit

        text: str = to_mergekit(recipe, beside=out.parent)
        return text
    header = f"evomerge merge THIS --out DIR\ndigest: {recipe.digest}"
    return dump_recipe(recipe, header, beside=out.parent)
