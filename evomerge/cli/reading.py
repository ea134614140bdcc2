"""Commands that read a study: ``status``, ``front``, ``report``, ``export``, ``dashboard``."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.exporting import export
from evomerge.cli.options import Json, StudyDir
from evomerge.cli.results import (
    front_data,
    print_forgetting,
    print_front,
    print_held_out,
    print_paired,
    print_unenforced,
)
from evomerge.cli.terminal import console, print_json
from evomerge.study.collecting import end_without_collecting, without_collecting

if TYPE_CHECKING:
    from evomerge.analysis.status import Status
    from evomerge.api.study import Study

__all__ = ["register"]

_RELOAD_S = 10
_FRONT_ROWS = 200


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(without_collecting()(status))  # over before there is garbage to speak of
    app.command()(without_collecting()(front))
    for command in (report, export, dashboard):
        app.command()(command)


def status(study: StudyDir, json: Json = False) -> None:
    """Show how far a study is and where its time goes."""
    end_without_collecting()
    from evomerge.analysis.status import study_status
    from evomerge.runs.reading import read_study, stage_studies
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
    if found.climbed:
        console.print(
            f"climbs       {found.climbed} trials went on along slopes; with them "
            f"{found.evaluations:.4g} of {found.budget} evaluations"
        )
    if found.climb_error is not None:
        console.print(
            f"failed       {found.failed_climbs} climbs; the last one with: {found.climb_error}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
    if found.infeasible:
        console.print(f"infeasible   {found.infeasible} of {found.trials['complete']} complete")
    print_unenforced(found.unenforced)
    console.print(f"hypervolume  {found.hypervolume:.4f}")
    console.print(f"throughput   {found.trials_per_minute:.1f} trials per minute")
    console.print(f"utilisation  {found.utilisation:.0%} of the workers' time")
    if found.items_saved:
        console.print(f"races        saved {found.items_saved:.0%} of the item evaluations")
    for phase, seconds in found.seconds.items():
        console.print(f"{phase:<13}{seconds:.1f} s")


def front(study: StudyDir, json: Json = False) -> None:
    """Show the non-dominated trials with error bars: of many some, with --json all."""
    from evomerge.analysis.forgetting import forgetting_rows
    from evomerge.analysis.gain import compared
    from evomerge.analysis.held_out import held_out_rows
    from evomerge.analysis.paired import paired_rows
    from evomerge.api.study import Study

    end_without_collecting()
    found = Study.open(study).results
    record = found.study
    items = found.items_of(compared(record))
    held_out, paired = held_out_rows(record, items), paired_rows(record, items)
    forgetting = forgetting_rows(record, items)
    if json:
        rows = {
            "held_out": [asdict(row) for row in held_out],
            "paired": [asdict(row) for row in paired],
            "forgetting": [asdict(row) for row in forgetting],
        }
        print_json({**front_data(record, items), **rows})
    else:
        print_front(record, items, most=_FRONT_ROWS)
        print_held_out(held_out, record)
        print_paired(paired, record.noun)
        print_forgetting(forgetting, record.noun)


def report(
    study: StudyDir,
    out: Annotated[Path | None, typer.Option(help="HTML file; default: in the study.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Write it again and again until the run is finished.")
    ] = False,
) -> None:
    """Write the report: one self-contained HTML file."""
    from evomerge.api.study import Study

    opened = Study.open(study)
    if live:
        _write_while_running(opened, out)
    console.print(str(opened.report(out)), soft_wrap=True)


def _write_while_running(study: Study, out: Path | None) -> None:
    """Write the report of a run that goes on every few seconds; Ctrl-C ends that."""
    is_told = False
    try:
        while not study.is_finished:
            file = study.report(out, reload_s=_RELOAD_S)
            if not is_told:
                console.print(f"{file}  (loads itself again; Ctrl-C ends it)", soft_wrap=True)
                is_told = True
            time.sleep(_RELOAD_S)
    except KeyboardInterrupt:
        return


def dashboard(
    study: StudyDir, port: Annotated[int, typer.Option(help="Port on this machine.")] = 8080
) -> None:
    """Serve optuna-dashboard on the study."""
    from evomerge.runs.optuna_study import serve_dashboard
    from evomerge.runs.reading import latest_study
    from evomerge.study.folder import StudyFolder

    serve_dashboard(
        latest_study(StudyFolder(study)),
        port,
        lambda address: console.print(f"{address}  (Ctrl-C ends it)", soft_wrap=True),
    )
