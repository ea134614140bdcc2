"""Commands that read a study: ``status``, ``front``, ``report``, ``export``, ``dashboard``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from evomerge.cli.terminal import console, print_json, print_table, value_text
from evomerge.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from evomerge.analysis.forgetting import Change, ForgettingRow
    from evomerge.analysis.held_out import HeldOutRow, HeldOutScore
    from evomerge.analysis.paired import PairedRow
    from evomerge.analysis.status import Status
    from evomerge.study.records import FinalRecord, StudyRecord, TrialRecord

__all__ = ["print_front", "register"]

StudyDir = Annotated[Path, typer.Argument(help="Study folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


class ExportFormat(str, Enum):
    """What an export is written as."""

    hf = "hf"
    recipe = "recipe"
    mergekit = "mergekit"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (status, front, report, export, dashboard):
        app.command()(command)


def status(study: StudyDir, json: Json = False) -> None:
    """Show how far a study is and where its time goes."""
    from evomerge.analysis.status import study_status
    from evomerge.config.runs import read_study
    from evomerge.config.stages import stage_studies
    from evomerge.study.folder import StudyFolder
    from evomerge.study.timing import read_timing

    studies = stage_studies(StudyFolder(study))
    found = [(one.name, study_status(read_study(one), read_timing(one.timing))) for one in studies]
    if json:
        stages = {"stages": [one.as_data() for _, one in found]} if len(found) > 1 else {}
        print_json({**found[-1][1].as_data(), **stages})
        return
    for name, one in found:
        if len(found) > 1:
            console.print(f"[bold]{name}[/]")
        _print_status(one)


def _print_status(found: Status) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in found.trials.items() if count)
    console.print(f"trials       {counts or 'none'} of {found.budget}")
    if found.infeasible:
        console.print(f"infeasible   {found.infeasible} of {found.trials['complete']} complete")
    _print_unenforced(found.unenforced)
    console.print(f"hypervolume  {found.hypervolume:.4f}")
    console.print(f"throughput   {found.trials_per_minute:.1f} trials per minute")
    if found.items_saved:
        console.print(f"races        saved {found.items_saved:.0%} of the item evaluations")
    for phase, seconds in found.seconds.items():
        console.print(f"{phase:<13}{seconds:.1f} s")


def _print_unenforced(constraints: Sequence[str]) -> None:
    for constraint in constraints:
        text = Text.assemble(("NOT ENFORCED ", "bold red"), constraint)
        console.print(text, soft_wrap=True)


def front(study: StudyDir, json: Json = False) -> None:
    """Show the non-dominated trials with error bars."""
    from evomerge.analysis.forgetting import forgetting_rows
    from evomerge.analysis.held_out import held_out_rows
    from evomerge.analysis.paired import paired_rows
    from evomerge.config.runs import read_study
    from evomerge.config.stages import latest_study
    from evomerge.evaluation.store import ItemStore
    from evomerge.study.folder import StudyFolder

    folder = latest_study(StudyFolder(study))
    record = read_study(folder)
    items = ItemStore(folder.items).read()
    held_out, paired = held_out_rows(record, items), paired_rows(record, items)
    forgetting = forgetting_rows(record, items)
    if json:
        found = {
            "held_out": [asdict(row) for row in held_out],
            "paired": [asdict(row) for row in paired],
            "forgetting": [asdict(row) for row in forgetting],
        }
        print_json({**_front_data(record), **found})
    else:
        print_front(record)
        _print_held_out(held_out, _headings(record))
        _print_paired(paired)
        _print_forgetting(forgetting)


def report(
    study: StudyDir,
    out: Annotated[Path | None, typer.Option(help="HTML file; default: in the study.")] = None,
) -> None:
    """Write the report: one self-contained HTML file."""
    from evomerge.analysis.report import write_report
    from evomerge.config.compare import read_comparison
    from evomerge.config.runs import read_study
    from evomerge.config.stages import latest_study
    from evomerge.evaluation.store import ItemStore
    from evomerge.study.folder import StudyFolder

    folder = StudyFolder(study)
    latest = latest_study(folder)
    items, comparison = ItemStore(latest.items).read(), read_comparison(latest.comparison)
    path = write_report(
        read_study(latest), out or folder.report, items=items, comparison=comparison
    )
    console.print(str(path), soft_wrap=True)


def export(
    study: StudyDir,
    out: Annotated[Path, typer.Option(help="Folder to write; a file for YAML formats.")],
    pick: Annotated[
        str, typer.Option(help="knee, chosen (by the finals), best:NAME, best:mean, trial:N.")
    ] = "knee",
    format_: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = (
        ExportFormat.hf
    ),
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="REPO", help="Also upload it to this repository.")
    ] = None,
) -> None:
    """Export a trial as a Hugging Face folder, a recipe, or mergekit YAML."""
    from evomerge.analysis.forgetting import forgetting_rows
    from evomerge.analysis.front import pick as pick_trial
    from evomerge.config.runs import read_experiment, read_study
    from evomerge.config.stages import latest_study
    from evomerge.evaluation.store import ItemStore
    from evomerge.export.model import export_model, export_text, push_folder
    from evomerge.study.folder import StudyFolder

    folder = latest_study(StudyFolder(study))
    record = read_study(folder)
    trial = pick_trial(record, pick)
    if format_ is not ExportFormat.hf:
        if push_to_hub is not None:
            raise ConfigError("expected --format hf with --push-to-hub: only folders are uploaded")
        if out.is_dir():
            raise ConfigError(f"expected a file for --format {format_.value}, got the folder {out}")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(export_text(trial, format_.value), encoding="utf-8")
        console.print(f"trial {trial.number} as {format_.value}: {out}", soft_wrap=True)
        return
    from evomerge.config.assemble import make_suites

    experiment = read_experiment(folder)
    rungs = () if experiment.race is None else experiment.race.rungs
    rescored = export_model(
        record,
        trial,
        out,
        make_suites(experiment),
        rungs=rungs,
        forgetting=forgetting_rows(record, ItemStore(folder.items).read()),
        engine=experiment.engine,
    )
    rows = list(zip(rescored.objectives, rescored.trial, rescored.folder, strict=True))
    console.print(f"trial {trial.number} ({trial.origin}) exported to {out}", soft_wrap=True)
    print_table(
        "",
        ["scored again after writing", "trial", "folder"],
        [(name, f"{a:.4f}", f"{b:.4f}") for name, a, b in rows],
    )
    if rescored.folding is not None:
        console.print(f"folded scales: rounding moves logits by (relative) {rescored.folding}")
    if not rescored.equal:
        raise EvaluationError(f"{out} does not score what trial {trial.number} scored; not usable")
    if push_to_hub is not None:
        console.print(push_folder(out, push_to_hub))


def dashboard(
    study: StudyDir, port: Annotated[int, typer.Option(help="Port on this machine.")] = 8080
) -> None:
    """Serve optuna-dashboard on the study."""
    from evomerge.config.runs import serve_dashboard
    from evomerge.config.stages import latest_study
    from evomerge.study.folder import StudyFolder

    serve_dashboard(
        latest_study(StudyFolder(study)),
        port,
        lambda address: console.print(f"{address}  (Ctrl-C ends it)", soft_wrap=True),
    )


def print_front(study: StudyRecord, *, most: int | None = None) -> None:
    """Print the front, and the held-out scores if there are any.

    Args:
        study: The study.
        most: Members to print of a larger front: its ends, the knee, and some between; all.
    """
    from evomerge.analysis.front import front as front_of
    from evomerge.analysis.front import pick as pick_trial

    members = front_of(study)
    _print_unenforced(study.unenforced)
    if not members:
        console.print("no trial is complete yet")
        return
    if not members[0].is_feasible:
        wanted = "; ".join(study.constraints)
        console.print(f"no trial is feasible ({wanted}); the least infeasible:", soft_wrap=True)
    names = _headings(study)
    knee = pick_trial(study, "knee")
    ordered = sorted(members, key=lambda t: t.values)
    shown = _thinned(ordered, most or len(ordered), knee)
    rows: list[tuple[str, ...]] = []
    for trial in shown:
        mark = " (knee)" if trial.number == knee.number else ""
        label = f"#{trial.number} {trial.origin}{mark}"
        rows.append((label, *_texts(trial.values, trial.stderr)))
    some = f" ({len(shown)} of {len(ordered)} trials)" if len(shown) < len(ordered) else ""
    print_table(f"Front, on search items{some}", ["trial", *names], rows)
    if study.finals:
        console.print()
        _print_finals(study)


def _thinned(trials: Sequence[TrialRecord], most: int, knee: TrialRecord) -> list[TrialRecord]:
    """Leave evenly spaced trials, at most ``most`` and the knee."""
    if len(trials) <= most:
        return list(trials)
    kept = {round(i * (len(trials) - 1) / (most - 1)) for i in range(most)}
    return [t for i, t in enumerate(trials) if i in kept or t.number == knee.number]


def _print_finals(study: StudyRecord) -> None:
    from evomerge.analysis.intervals import mean
    from evomerge.study.constraints import finals_note
    from evomerge.study.records import has_mean

    with_mean = has_mean(study.objectives)
    rows: list[tuple[str, ...]] = []
    bold = None
    for final in (f for f in study.finals if f.split == "test"):
        if final.chosen:
            bold = len(rows)
        row = [_label(final), *_texts(final.values, final.stderr)]
        if with_mean:
            overall = mean(final.values, final.stderr)
            row.append(value_text(overall.value, overall.stderr))
        rows.append(tuple(row))
    columns = ["model", *_headings(study), *(["mean"] if with_mean else [])]
    title = "Test items, never searched; validation items picked the merge"
    print_table(title, columns, rows, bold=bold)
    if note := finals_note(study.finals, study.constraints):
        console.print(note, style="bold red", soft_wrap=True)


def _label(final: FinalRecord | HeldOutRow | ForgettingRow) -> str:
    return f"best merge (#{final.number})" if final.chosen else final.origin


def _print_held_out(rows: Sequence[HeldOutRow], objectives: Sequence[str]) -> None:
    """Print test scores with 95 % intervals, and how far each gets from base to best expert."""
    if not rows:
        return
    console.print()
    texts = [(_label(row), *map(_interval_text, row.scores)) for row in rows]
    title = "95 % intervals; base to best expert is 0 to 100 %"
    bold = next((i for i, row in enumerate(rows) if row.chosen), None)
    print_table(title, ["model", *objectives], texts, bold=bold)


def _interval_text(score: HeldOutScore) -> str:
    bounds = f"{score.value:.3f}"
    if not math.isnan(score.low):
        bounds = f"{score.low:.3f}–{score.high:.3f}"
    return bounds if math.isnan(score.normalised) else f"{bounds}, {score.normalised:.0%}"


def _print_paired(rows: Sequence[PairedRow]) -> None:
    """Print what the chosen merge gained over base and experts, and what it broke."""
    if not rows:
        return
    console.print()
    texts = [
        (
            row.reference,
            row.objective,
            value_text(row.gain.value, row.gain.stderr),
            "" if math.isnan(row.negative_flips) else f"{row.negative_flips:.1%}",
        )
        for row in rows
    ]
    title = "The chosen merge on the same test items, paired"
    print_table(title, ["against", "objective", "merge minus it", "right there, wrong here"], texts)


def _print_forgetting(rows: Sequence[ForgettingRow]) -> None:
    """Print what became of the tasks that the search never saw, metric by metric."""
    for (measure, direction), group in groupby(rows, key=lambda row: (row.measure, row.direction)):
        console.print()
        texts = [
            (
                _label(row),
                f"{row.value:.3f}",
                "" if math.isnan(row.normalised) else f"{row.normalised:.0%}",
                _change_text(row.versus_base),
                _change_text(row.versus_expert),
            )
            for row in group
        ]
        name = measure + (" ↓" if direction == "minimize" else "")
        title = f"{name}, never searched; differences with 95 % intervals"
        columns = ["model", "score", "of base", "minus base", "minus best expert"]
        print_table(title, columns, texts)


def _change_text(change: Change | None) -> str:
    if change is None:
        return ""
    bounds = "" if math.isnan(change.low) else f" [{change.low:+.2f}, {change.high:+.2f}]"
    return f"{change.value:+.3f}{bounds}"


def _headings(study: StudyRecord) -> list[str]:
    """Name the objectives; lower is better where an arrow points down."""
    return [o.name + (" ↓" if o.direction == "minimize" else "") for o in study.objectives]


def _texts(values: tuple[float, ...], stderr: tuple[float, ...]) -> list[str]:
    return [value_text(v, e) for v, e in zip(values, stderr, strict=True)]


def _front_data(study: StudyRecord) -> dict[str, object]:
    from evomerge.analysis.front import front as front_of
    from evomerge.study.constraints import finals_note

    return {
        "objectives": [{"name": o.name, "direction": o.direction} for o in study.objectives],
        "constraints": study.constraints,
        "unenforced": study.unenforced,
        "finals_note": finals_note(study.finals, study.constraints),
        "trials": [
            {
                "number": t.number,
                "feasible": t.is_feasible,
                "values": t.values,
                "stderr": t.stderr,
                "recipe": dict(t.recipe),
            }
            for t in front_of(study)
        ],
    }
