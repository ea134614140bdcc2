"""Commands that search: ``check``, ``run``, ``resume``."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.genes import gene_rows
from evomerge.cli.options import (
    Executor,
    ExperimentFile,
    Overrides,
    PresetFolder,
    Workers,
    execution_overrides,
    load,
)
from evomerge.cli.reading import write_run_report
from evomerge.cli.results import print_front
from evomerge.cli.terminal import console, notes, print_table

if TYPE_CHECKING:
    from evomerge.config.assemble import Assembly
    from evomerge.study.folder import StudyFolder

__all__ = ["register"]

_FRONT_ROWS = 12  # at the end of a run; the command front prints all


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (check, run, resume):
        app.command()(command)


def check(experiment: ExperimentFile, set_: Overrides = None, presets: PresetFolder = None) -> None:
    """Validate an experiment without running it; report every fault at once."""
    from evomerge.config.stages import assemble_stages

    assemblies = assemble_stages(*load(experiment, set_, presets))
    for number, assembly in enumerate(assemblies, 1):
        if len(assemblies) > 1:
            console.print(f"[bold]stage {number}[/]")
        _print_assembly(assembly)


def _print_assembly(assembly: Assembly) -> None:
    from evomerge.config.cost import example_recipe, experiment_facts

    genes = assembly.space.describe()
    print_table(
        "",
        [f"{len(genes)} genes", "range", "neutral", "meaning"],
        list(gene_rows(genes)),
    )
    console.print()
    for name, value in (*experiment_facts(assembly), ("example", "the neutral genes decode to")):
        console.print(f"{name:<12}{value}", soft_wrap=True)
    example = indent(example_recipe(assembly), " " * 12)
    console.print(example, soft_wrap=True, markup=False, highlight=False)


def run(
    experiment: ExperimentFile,
    dir_: Annotated[
        Path | None, typer.Option("--dir", help="Study folder; default: runs/NAME.")
    ] = None,
    set_: Overrides = None,
    executor: Executor = None,
    workers: Workers = None,
    presets: PresetFolder = None,
) -> None:
    """Start a study and run it until its budget is met."""
    from evomerge.config.presets import Presets
    from evomerge.config.stages import created_run
    from evomerge.study.folder import StudyFolder

    found = Presets(presets)
    path = found.find("experiments", experiment, Path.cwd())
    folder = StudyFolder(dir_ or Path("runs") / path.stem)
    overrides = [*(set_ or []), *execution_overrides(executor, workers)]
    with created_run(path, found, overrides, folder):
        _continue(folder)


def resume(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    set_: Overrides = None,
    executor: Executor = None,
    workers: Workers = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Go on although models or items changed: trials before and after differ.",
        ),
    ] = False,
) -> None:
    """Continue a study: finished trials stay, unfinished ones run again."""
    from evomerge.config.stages import change_run
    from evomerge.study.folder import StudyFolder

    folder = StudyFolder(study)
    overrides = [*(set_ or []), *execution_overrides(executor, workers)]
    change_run(folder, overrides, accept_changes=accept_changes)
    _continue(folder, accept_changes=accept_changes)


def _continue(folder: StudyFolder, *, accept_changes: bool = False) -> None:
    from evomerge.cli.progress import SearchProgress
    from evomerge.config.runs import Events
    from evomerge.config.stages import continue_run

    root = folder.root
    with SearchProgress() as progress:
        try:
            events = Events(progress.phase, progress.part, progress.told, progress.began)
            study = continue_run(folder, events, accept_changes=accept_changes)
        except KeyboardInterrupt:
            notes.print(
                f"stopped; nothing is lost: 'evomerge resume {root}' continues", soft_wrap=True
            )
            raise
    print_front(study, most=_FRONT_ROWS)  # first, since it needs no disk
    write_run_report(folder, folder.report)
    console.print(f"\nfront    evomerge front {root}", soft_wrap=True)
    console.print(f"report   {folder.report}", soft_wrap=True)
    which = "chosen" if study.finals else "knee"
    console.print(f"export   evomerge export {root} --pick {which} --out DIR", soft_wrap=True)
