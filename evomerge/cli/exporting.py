"""The command that writes what a study found as files for other tools: ``export``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.options import AllowNonFinite, StudyDir
from evomerge.cli.results import print_no_gain
from evomerge.cli.terminal import console, print_table
from evomerge.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from evomerge.api.study import Study
    from evomerge.export.model import Rescored
    from evomerge.study.records import TrialRecord

__all__ = ["export"]


class ExportFormat(str, Enum):
    """What an export is written as."""

    hf = "hf"
    recipe = "recipe"
    mergekit = "mergekit"


def export(
    study: StudyDir,
    out: Annotated[Path, typer.Option(help="Folder to write; a file for YAML formats.")],
    pick: Annotated[
        str, typer.Option(help="knee, chosen (best in the finals), best:NAME, best:mean, trial:N.")
    ] = "knee",
    format_: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = (
        ExportFormat.hf
    ),
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Also upload it to this repository, made private."),
    ] = None,
    allow_non_finite: AllowNonFinite = False,
    public: Annotated[
        bool, typer.Option("--public", help="Everybody may read the repository.")
    ] = False,
) -> None:
    """Export a trial as a Hugging Face folder, a recipe, or mergekit YAML."""
    from evomerge.api.study import Study

    if public and push_to_hub is None:
        raise ConfigError("expected --push-to-hub with --public: nothing else is published")
    if push_to_hub is not None and format_ is not ExportFormat.hf:
        raise ConfigError("expected --format hf with --push-to-hub: only folders are uploaded")
    opened = Study.open(study)
    trial = opened.best(pick)  # before what takes seconds to import

    from evomerge.export.model import open_repository, push_folder

    if format_ is not ExportFormat.hf:
        _export_text(opened, trial, format_, out)
        return
    if push_to_hub is not None:
        open_repository(push_to_hub, is_public=public)
    _export_folder(opened, trial, out, allow_non_finite=allow_non_finite)
    if push_to_hub is not None:
        console.print(push_folder(out, push_to_hub))


def _export_text(study: Study, trial: TrialRecord, format_: ExportFormat, out: Path) -> None:
    study.export_recipe(trial, out, "mergekit" if format_ is ExportFormat.mergekit else "recipe")
    console.print(f"trial {trial.number} as {format_.value}: {out}", soft_wrap=True)


def _export_folder(study: Study, trial: TrialRecord, out: Path, *, allow_non_finite: bool) -> None:
    from evomerge.analysis.gain import no_gain

    rescored = study.export(trial, out, allow_non_finite=allow_non_finite)
    found = study.results
    console.print(f"trial {trial.number} ({trial.origin}) exported to {out}", soft_wrap=True)
    print_no_gain(no_gain(found.study, found.items))
    _print_rescored(rescored)
    if not rescored.equal:
        raise EvaluationError(f"{out} does not score what trial {trial.number} scored; not usable")


def _print_rescored(rescored: Rescored) -> None:
    pairs = zip(rescored.objectives, rescored.trial, rescored.folder, strict=True)
    rows = [(name, f"{recorded:.4f}", f"{again:.4f}") for name, recorded, again in pairs]
    print_table("", ["scored again after writing", "trial", "folder"], rows)
    console.print(rescored.rule, soft_wrap=True)
    if rescored.non_finite:
        console.print(f"warning: the folder holds {rescored.non_finite}", soft_wrap=True)
    if rescored.folding is not None:
        console.print(
            f"folded scales: rounding moves logits by (relative) {rescored.folding}; "
            f"the epsilon of norms by {rescored.folding.epsilon:.1e}"
        )
