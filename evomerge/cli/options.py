"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.terminal import print_faults

if TYPE_CHECKING:
    from evomerge.config.experiment import Experiment
    from evomerge.runs.loaded import Loaded

__all__ = [
    "AllowNonFinite",
    "ExecutorName",
    "ExperimentFile",
    "Json",
    "Loggers",
    "Overrides",
    "PresetFolder",
    "StudyDir",
    "Workers",
    "execution_overrides",
    "load",
    "resolve",
]

ExperimentFile = Annotated[str, typer.Argument(help="Experiment YAML, or the name of a preset.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; repeatable.")
]
PresetFolder = Annotated[
    Path | None, typer.Option("--presets", help="Folder with presets of your own.")
]
ExecutorName = Annotated[str | None, typer.Option(help="ray or inline.")]
Workers = Annotated[int | None, typer.Option(help="Number of workers.")]
Loggers = Annotated[
    list[str] | None,
    typer.Option("--log", help="Tracker that hears of trials: mlflow, wandb or tensorboard."),
]
StudyDir = Annotated[Path, typer.Argument(help="Study folder.")]
AllowNonFinite = Annotated[
    bool,
    typer.Option("--allow-non-finite", help="Write a merge although it holds NaN or infinity."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def load(name: str, overrides: list[str] | None, preset_folder: Path | None) -> tuple[Loaded, ...]:
    """Find an experiment by name or path and load every stage of it.

    Raises:
        ConfigError: Every fault.
    """
    from evomerge.config.load import draft_of
    from evomerge.config.presets import Presets

    draft = draft_of(name, overrides or [], Presets(preset_folder))
    print_faults(draft.faults)  # at once: what follows takes a while
    from evomerge.runs.stages import load_draft

    return load_draft(draft)


def resolve(name: str, overrides: list[str] | None, preset_folder: Path | None) -> Experiment:
    """Find an experiment by name or path and resolve it; its parts are not looked at.

    Raises:
        ConfigError: Every fault of the file.
    """
    from evomerge.config.load import draft_of
    from evomerge.config.presets import Presets

    return draft_of(name, overrides or [], Presets(preset_folder)).complete()


def execution_overrides(
    executor: str | None, workers: int | None, loggers: list[str] | None = None
) -> list[str]:
    """Write ``--executor``, ``--workers`` and ``--log`` as overrides of the experiment."""
    chosen = {"executor": executor, "workers": workers}
    found = [f"execution.{key}={value}" for key, value in chosen.items() if value is not None]
    return [*found, f"loggers=[{', '.join(loggers)}]"] if loggers else found
