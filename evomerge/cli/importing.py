"""The command that takes files of other tools over: ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.terminal import console
from evomerge.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import")(import_)


def import_(
    file: Annotated[Path, typer.Argument(help="mergekit-evolve's configuration, or mergekit's.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: experiment.yaml or recipe.yaml.")
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder of task YAML: its --task-search-path.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Budget, its --max-fevals; default: 100 as there.")
    ] = None,
) -> None:
    """Write an experiment from a file of mergekit-evolve, or a recipe from one of mergekit."""
    from evomerge.config.evolve import experiment_from_evolve
    from evomerge.recipe.files import RECIPE_FILE, dump_recipe, load_recipe
    from evomerge.schema import read_yaml

    is_search = "genome" in read_yaml(file)
    out = out or Path("experiment.yaml" if is_search else RECIPE_FILE)
    if out.exists():
        raise ConfigError(f"expected --out to be a new file, {out} is there already")
    if not is_search and (trials or include_path):
        raise ConfigError(f"expected --trials and --include-path with a search, {file} is a merge")
    if is_search:
        text = experiment_from_evolve(file, out=out, include_path=include_path, trials=trials)
    else:
        text = dump_recipe(load_recipe(file), f"From {file.name}.", beside=out.parent)
    out.write_text(text, encoding="utf-8")
    go_on = f"check {out}" if is_search else f"merge {out} --out DIR"
    console.print(f"{out} written; 'evomerge {go_on}' goes on from here", soft_wrap=True)
