"""Commands that search: ``check``, ``run``, ``resume``."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.terminal import console, notes, print_table

if TYPE_CHECKING:
    from evomerge.config.assemble import Assembly

__all__ = [
    "Executor",
    "ExperimentFile",
    "Overrides",
    "PresetFolder",
    "Workers",
    "execution_overrides",
    "register",
]

ExperimentFile = Annotated[str, typer.Argument(help="Experiment YAML, or the name of a preset.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; repeatable.")
]
PresetFolder = Annotated[
    Path | None, typer.Option("--presets", help="Folder with presets of your own.")
]
Executor = Annotated[str | None, typer.Option(help="ray or inline.")]
_FRONT_ROWS = 12  # at the end of a run; the command front prints all
Workers = Annotated[int | None, typer.Option(help="Number of workers.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (check, run, resume):
        app.command()(command)


def check(experiment: ExperimentFile, set_: Overrides = None, presets: PresetFolder = None) -> None:
    """Validate an experiment without running it; report every fault at once."""
    from evomerge.config.load import load_experiment
    from evomerge.config.presets import Presets
    from evomerge.config.stages import assemble_stages

    found = Presets(presets)
    path = found.find("experiments", experiment, Path.cwd())
    assemblies = assemble_stages(load_experiment(path, found, set_ or []), str(path))
    for number, assembly in enumerate(assemblies, 1):
        if len(assemblies) > 1:
            console.print(f"[bold]stage {number}[/]")
        _print_assembly(assembly)


def _print_assembly(assembly: Assembly) -> None:
    from evomerge.cli.genes import gene_rows
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
    from evomerge.config.stages import create_run
    from evomerge.study.folder import StudyFolder

    found = Presets(presets)
    path = found.find("experiments", experiment, Path.cwd())
    folder = StudyFolder(dir_ or Path("runs") / path.stem)
    create_run(path, found, [*(set_ or []), *execution_overrides(executor, workers)], folder)
    _continue(folder.root)


def resume(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    set_: Overrides = None,
    executor: Executor = None,
    workers: Workers = None,
) -> None:
    """Continue a study: finished trials stay, unfinished ones run again."""
    from evomerge.config.stages import change_run
    from evomerge.study.folder import StudyFolder

    change_run(StudyFolder(study), [*(set_ or []), *execution_overrides(executor, workers)])
    _continue(study)


def _continue(root: Path) -> None:
    from evomerge.analysis.report import write_report
    from evomerge.cli.progress import SearchProgress
    from evomerge.cli.reading import print_front
    from evomerge.config.compare import read_comparison
    from evomerge.config.runs import Events
    from evomerge.config.stages import continue_run, latest_study
    from evomerge.evaluation.store import ItemStore
    from evomerge.study.folder import StudyFolder

    folder = StudyFolder(root)
    with SearchProgress() as progress:
        try:
            events = Events(progress.phase, progress.part, progress.told, progress.began)
            study = continue_run(folder, events)
        except KeyboardInterrupt:
            notes.print(
                f"stopped; nothing is lost: 'evomerge resume {root}' continues", soft_wrap=True
            )
            raise
    latest = latest_study(folder)
    items, comparison = ItemStore(latest.items).read(), read_comparison(latest.comparison)
    print_front(study, most=_FRONT_ROWS)  # first, since it needs no disk
    write_report(study, folder.report, items=items, comparison=comparison)
    console.print(f"\nfront    evomerge front {root}", soft_wrap=True)
    console.print(f"report   {folder.report}", soft_wrap=True)
    which = "chosen" if study.finals else "knee"
    console.print(f"export   evomerge export {root} --pick {which} --out DIR", soft_wrap=True)


def execution_overrides(executor: str | None, workers: int | None) -> list[str]:
    """Write ``--executor`` and ``--workers`` as overrides of the experiment."""
    chosen = {"executor": executor, "workers": workers}
    return [f"execution.{key}={value}" for key, value in chosen.items() if value is not None]
