"""The command that writes what a study found as files for other tools: ``export``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from evomerge.cli.options import AllowNonFinite, StudyDir
from evomerge.cli.results import print_no_gain
from evomerge.cli.terminal import console, print_table
from evomerge.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from evomerge.api.study import Study
    from evomerge.export.model import CheckpointForm
    from evomerge.export.rescored import Rescored
    from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["export"]


class ExportFormat(str, Enum):
    """What an export is written as."""

    hf = "hf"
    recipe = "recipe"
    mergekit = "mergekit"
    lora = "lora"


_FRONT = "front"
_SUFFIXES = {ExportFormat.recipe: ".yaml", ExportFormat.mergekit: ".yaml"}


def export(
    study: StudyDir,
    out: Annotated[Path, typer.Option(help="Folder to write; a file for YAML formats.")],
    pick: Annotated[
        str,
        typer.Option(
            help="knee, chosen (in the finals), best:NAME, best:mean, prefer:A=0.7,B=0.3, trial:N; "
            "front: each merge on the front, in a folder of its own."
        ),
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
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        typer.Option(help="Of the tensors; default: the trial's."),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Largest file, as 5GB or 500MB.")
    ] = None,
) -> None:
    """Export trials as Hugging Face folders, LoRA adapters, recipes, or mergekit YAML."""
    from evomerge.api.study import Study

    if fault := next(_misuses(push_to_hub, format_, pick, public, dtype or max_shard_size), None):
        raise ConfigError(fault)
    shard_bytes = None if max_shard_size is None else _bytes(max_shard_size)
    opened = Study.open(study)
    if pick == _FRONT:  # before what takes seconds to import
        end = _SUFFIXES.get(format_, "")
        trials = {out / f"trial-{t.number}{end}": t for t in _merges(opened.record)}
        _require_no_others(out, end, trials)
    else:
        trials = {out: opened.best(pick)}
    if format_ is not ExportFormat.hf:
        _export_others(opened, trials, format_)
        return

    from evomerge.analysis.gain import no_gain
    from evomerge.export.hub import open_repository, push_folder
    from evomerge.export.model import CheckpointForm
    from evomerge.merging.folder import SHARD_BYTES

    form = CheckpointForm(dtype, shard_bytes or SHARD_BYTES, allow_non_finite)
    if push_to_hub is not None:
        open_repository(push_to_hub, is_public=public)
    for folder, trial in trials.items():
        _export_folder(opened, trial, folder, form)
    found = opened.results
    print_no_gain(no_gain(found.study, found.items))
    if push_to_hub is not None:
        console.print(push_folder(out, push_to_hub))


def _misuses(
    repository: str | None, format_: ExportFormat, pick: str, public: bool, form: str | None
) -> Iterator[str]:
    """Say which options do not go together."""
    if public and repository is None:
        yield "expected --push-to-hub with --public: nothing else is published"
    if repository is not None and format_ is not ExportFormat.hf:
        yield "expected --format hf with --push-to-hub: only folders are uploaded"
    if repository is not None and pick == _FRONT:
        yield "expected one model with --push-to-hub, got --pick front"
    if form and format_ is not ExportFormat.hf:
        yield "expected --format hf with --dtype or --max-shard-size"


def _export_others(study: Study, trials: Mapping[Path, TrialRecord], format_: ExportFormat) -> None:
    for place, trial in trials.items():
        what = format_.value
        if format_ is ExportFormat.lora:
            what = f"an adapter of rank {study.export_adapter(trial, place)}"
        else:
            is_theirs = format_ is ExportFormat.mergekit
            study.export_recipe(trial, place, "mergekit" if is_theirs else "recipe")
        console.print(f"trial {trial.number} as {what}: {place}", soft_wrap=True)


def _bytes(size: str) -> int:
    """Read a size as transformers does: ``5GB`` is five thousand million bytes."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?)B", size, re.IGNORECASE)
    if not match or int(match[1]) == 0:
        raise ConfigError(f"expected --max-shard-size as 5GB or 500MB, got {size!r}")
    thousands = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
    return int(match[1]) * thousands[match[2].upper()]


def _merges(study: StudyRecord) -> list[TrialRecord]:
    """List the merges on the front; ensembles are none."""
    from evomerge.analysis.front import front
    from evomerge.origins import is_single_model

    found = [trial for trial in front(study) if not is_single_model(trial.origin)]
    merges = [trial for trial in found if "ensemble" not in trial.recipe]
    if not merges:
        raise ConfigError("expected merges on the front, got none; --pick trial:N takes any trial")
    return merges


def _require_no_others(out: Path, end: str, trials: Mapping[Path, TrialRecord]) -> None:
    """Make sure that a folder will hold this front alone, not merges that have left it."""
    there = (place for place in out.glob(f"trial-*{end}") if place.is_dir() == (not end))
    others = sorted(place.name for place in there if place not in trials)
    if others:
        raise ConfigError(
            f"expected a folder for this front, got {out} with {', '.join(others)}, which is not "
            "on it; remove that, or choose another folder"
        )


def _export_folder(study: Study, trial: TrialRecord, out: Path, form: CheckpointForm) -> None:
    rescored = study.export(trial, out, form)
    console.print(f"trial {trial.number} ({trial.origin}) exported to {out}", soft_wrap=True)
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
