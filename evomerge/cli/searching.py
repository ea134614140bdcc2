"""Commands that search: ``check``, ``run``, ``resume``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.genes import gene_rows
from evomerge.cli.options import (
    ExecutorName,
    ExperimentFile,
    Overrides,
    PresetFolder,
    Workers,
    execution_overrides,
    load,
)
from evomerge.cli.reading import write_run_report
from evomerge.cli.results import print_front
from evomerge.cli.terminal import console, notes, print_faults, print_table

if TYPE_CHECKING:
    from evomerge.runs.events import Events
    from evomerge.runs.loaded import Loaded
    from evomerge.study.folder import StudyFolder
    from evomerge.study.records import StudyRecord

__all__ = ["register"]

_FRONT_ROWS = 12  # at the end of a run; the command front prints all


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (check, run, resume):
        app.command()(command)


def check(experiment: ExperimentFile, set_: Overrides = None, presets: PresetFolder = None) -> None:
    """Validate an experiment without running it; report every fault at once."""
    stages = load(experiment, set_, presets)
    from evomerge.runs.cost import gpu_note  # takes seconds, which faults need not wait for

    for number, loaded in enumerate(stages, 1):
        if len(stages) > 1:
            console.print(f"[bold]stage {number}[/]")
        _print_loaded(loaded)
    if note := gpu_note(stages[0]):
        console.print(note, soft_wrap=True)


def _print_loaded(loaded: Loaded) -> None:
    from evomerge.runs.cost import example_recipe, experiment_facts

    genes = loaded.space.describe()
    print_table(
        "",
        [f"{len(genes)} genes", "range", "neutral", "meaning"],
        list(gene_rows(genes)),
    )
    console.print()
    for name, value in (*experiment_facts(loaded), ("example", "the neutral genes decode to")):
        console.print(f"{name:<12}{value}", soft_wrap=True)
    example = indent(example_recipe(loaded), " " * 12)
    console.print(example, soft_wrap=True, markup=False, highlight=False)


def run(
    experiment: ExperimentFile,
    dir_: Annotated[
        Path | None, typer.Option("--dir", help="Study folder; default: runs/NAME.")
    ] = None,
    set_: Overrides = None,
    executor: ExecutorName = None,
    workers: Workers = None,
    presets: PresetFolder = None,
) -> None:
    """Start a study and run it until its budget is met."""
    from evomerge.config.presets import Presets
    from evomerge.study.folder import StudyFolder

    found = Presets(presets)
    path = found.find("experiments", experiment, Path.cwd())
    folder = StudyFolder(dir_ or Path("runs") / path.stem)
    overrides = [*(set_ or []), *execution_overrides(executor, workers)]
    with _shown(folder) as events:
        from evomerge.runs.stages import start_run

        done = start_run(path, found, overrides, folder, events)
    _print_end(folder, done)


def resume(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    set_: Overrides = None,
    executor: ExecutorName = None,
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
    from evomerge.runs.stages import change_run, continue_run
    from evomerge.study.folder import StudyFolder

    folder = StudyFolder(study)
    overrides = [*(set_ or []), *execution_overrides(executor, workers)]
    change_run(folder, overrides, accept_changes=accept_changes)
    with _shown(folder) as events:
        done = continue_run(folder, events, accept_changes=accept_changes)
    _print_end(folder, done)


@contextmanager
def _shown(folder: StudyFolder) -> Iterator[Events]:
    """Show the progress of a run; the first line before anything that takes long."""
    from evomerge.cli.progress import SearchProgress
    from evomerge.runs.events import Events

    try:
        with SearchProgress() as progress:
            yield Events(
                phase=progress.phase,
                part=progress.part,
                told=progress.told,
                warned=progress.warned,
                noted=progress.noted,
                faulty=print_faults,
                began=progress.began,
            )
    except KeyboardInterrupt:  # the bar is gone: nothing is drawn below what is said
        if folder.experiment.is_file():
            how = f"nothing is lost: 'evomerge resume {folder.root}' continues"
            notes.print(f"stopped; {how}", soft_wrap=True)
        raise


def _print_end(folder: StudyFolder, study: StudyRecord) -> None:
    from evomerge.evaluation.store import ItemStore
    from evomerge.runs.reading import latest_study

    root, items = folder.root, ItemStore(latest_study(folder).items).read()
    print_front(study, items, most=_FRONT_ROWS)  # first, since it needs no room on the disk
    write_run_report(folder, folder.report)
    console.print(f"\nfront    evomerge front {root}", soft_wrap=True)
    console.print(f"report   {folder.report}", soft_wrap=True)
    which = "chosen" if study.finals else "knee"
    console.print(f"export   evomerge export {root} --pick {which} --out DIR", soft_wrap=True)
