"""Commands that search: ``check``, ``run``, ``resume``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.genes import gene_rows
from evomerge.cli.options import (
    ExecutorName,
    ExperimentFile,
    Loggers,
    Overrides,
    PresetFolder,
    Workers,
    execution_overrides,
    load,
)
from evomerge.cli.results import print_front
from evomerge.cli.terminal import console, notes, print_faults, print_table

if TYPE_CHECKING:
    from evomerge.api.study import Study
    from evomerge.runs.events import Events
    from evomerge.runs.loaded import Loaded
    from evomerge.study.folder import StudyFolder

__all__ = ["register"]

_FRONT_ROWS = 12  # at the end of a run; the command front prints more


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (check, run, resume):
        app.command()(command)


def check(
    experiment: ExperimentFile,
    set_: Overrides = None,
    presets: PresetFolder = None,
    time: Annotated[
        bool, typer.Option("--time", help="Also measure what the budget costs in time.")
    ] = False,
) -> None:
    """Validate an experiment without running it; report every fault at once."""
    stages = load(experiment, set_, presets)
    from evomerge.runs.cost import gpu_note  # takes seconds, which faults need not wait for

    for number, loaded in enumerate(stages, 1):
        if len(stages) > 1:
            console.print(f"[bold]stage {number}[/]")
        _print_loaded(loaded)
        if time:
            _print_time(loaded)
    if note := gpu_note(stages[0]):
        console.print(note, soft_wrap=True)


def _print_loaded(loaded: Loaded) -> None:
    from evomerge.runs.cost import example_recipe, experiment_facts

    genes, facts = loaded.space.describe(), experiment_facts(loaded)
    print_table(
        "",
        [f"{len(genes)} genes", "range", "neutral", "meaning"],
        list(gene_rows(genes)),
    )
    console.print()
    for name, value in (*facts, ("example", "the neutral genes decode to")):
        console.print(f"{name:<12}{value}", soft_wrap=True)
    example = indent(example_recipe(loaded), " " * 12)
    console.print(example, soft_wrap=True, markup=False, highlight=False)


def _print_time(loaded: Loaded) -> None:
    from evomerge.progress import duration_text
    from evomerge.runs.pace import measure_pace

    with notes.status("merging and scoring once"):
        pace = measure_pace(loaded)
    n_trials = loaded.experiment.budget.trials
    console.print(
        f"time        {pace.trial:.2g} s per trial, measured; {n_trials} trials on "
        f"{pace.n_workers} workers take about {duration_text(pace.seconds(n_trials))}",
        soft_wrap=True,
    )


def run(
    experiment: ExperimentFile,
    dir_: Annotated[
        Path | None, typer.Option("--dir", help="Study folder; default: runs/NAME.")
    ] = None,
    set_: Overrides = None,
    executor: ExecutorName = None,
    workers: Workers = None,
    log: Loggers = None,
    presets: PresetFolder = None,
) -> None:
    """Start a study and run it until its budget is met."""
    from evomerge.config.presets import Presets
    from evomerge.study.folder import StudyFolder

    presets_ = Presets(presets)
    if dir_ is None:
        dir_ = Path("runs") / presets_.find("experiments", experiment, Path.cwd()).stem
    overrides = [*(set_ or []), *execution_overrides(executor, workers, log)]
    with _shown(StudyFolder(dir_)) as events:
        from evomerge.api.running import run as run_experiment

        done = run_experiment(experiment, dir_, set=overrides, events=events, presets=presets_)
    _print_end(done)


def resume(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    set_: Overrides = None,
    executor: ExecutorName = None,
    workers: Workers = None,
    log: Loggers = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Go on although models or items changed: trials before and after differ.",
        ),
    ] = False,
) -> None:
    """Continue a study: finished trials stay, unfinished ones run again."""
    from evomerge.study.folder import StudyFolder

    overrides = [*(set_ or []), *execution_overrides(executor, workers, log)]
    with _shown(StudyFolder(study)) as events:
        from evomerge.api.running import resume as resume_study

        done = resume_study(study, set=overrides, accept_changes=accept_changes, events=events)
    _print_end(done)


@contextmanager
def _shown(folder: StudyFolder) -> Iterator[Events]:
    """Show the progress of a run; the first line before anything that takes long."""
    from evomerge.progress import SearchProgress

    try:
        with SearchProgress() as progress:
            yield replace(progress.events, faulty=print_faults)
    except KeyboardInterrupt:  # the bar is gone: nothing is drawn below what is said
        if folder.experiment.is_file():
            how = f"nothing is lost: 'evomerge resume {folder.root}' continues"
            notes.print(f"stopped; {how}", soft_wrap=True)
        raise


def _print_end(study: Study) -> None:
    found = study.results
    print_front(found.study, found.items, most=_FRONT_ROWS)  # first: it needs no room on the disk
    report = study.report()
    console.print(f"\nfront    evomerge front {study.dir}", soft_wrap=True)
    console.print(f"report   {report}", soft_wrap=True)
    console.print(_next_step(study), soft_wrap=True, markup=False)


def _next_step(study: Study) -> str:
    """Say what makes a model of what was found, or scores models that no one checkpoint holds."""
    from evomerge.analysis.front import front
    from evomerge.recipe.files import stored_recipe

    record = study.record
    which = "chosen" if record.finals else "knee"
    best = study.best(which) if front(record) else None
    if best is None or "ensemble" not in best.recipe:
        return f"export   evomerge export {study.dir} --pick {which} --out DIR"
    ensemble = stored_recipe(best.recipe, best.number).together
    return f"evaluate evomerge evaluate FILE, with the {which} {ensemble} in FILE"
