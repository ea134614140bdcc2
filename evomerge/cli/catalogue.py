"""Commands that list what there is: ``presets``, ``methods``, ``samplers``, ``zoo``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from evomerge.cli.terminal import console, notes, print_table

if TYPE_CHECKING:
    from evomerge.methods.base import Method

__all__ = ["register"]

presets_app = typer.Typer(help="Search spaces, evaluators and experiments that ship with evomerge.")
zoo_app = typer.Typer(help="The embedded small models.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(methods)
    app.command()(samplers)
    app.add_typer(presets_app, name="presets", no_args_is_help=True)
    app.add_typer(zoo_app, name="zoo", no_args_is_help=True)


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in detail.")] = None,
) -> None:
    """List the merge methods, or describe one."""
    from evomerge.methods.registry import method, method_names

    if name is None:
        found = [method(n) for n in method_names()]
        rows = [(m.name, m.summary, ", ".join(m.parameters())) for m in found]
        print_table("", ["method", "what it does", "parameters"], rows)
    else:
        _describe(method(name))


def samplers() -> None:
    """List the samplers and when to use each."""
    from evomerge.samplers import sampler_names

    print_table("", ["sampler", "when to use it"], list(sampler_names().items()))


@presets_app.command("list")
def presets_list() -> None:
    """List every preset with its purpose."""
    from evomerge.config.presets import PRESET_KINDS, Presets, purpose

    rows = [
        (kind, name, purpose(file))
        for kind in PRESET_KINDS
        for name, file in Presets().names(kind).items()
    ]
    print_table("", ["kind", "name", "purpose"], rows)


@presets_app.command("show")
def presets_show(name: Annotated[str, typer.Argument(help="Preset name.")]) -> None:
    """Print a preset."""
    for file in _preset_files(name):
        console.out(file.read_text(encoding="utf-8"), end="")


@presets_app.command("copy")
def presets_copy(
    name: Annotated[str, typer.Argument(help="Preset name.")],
    to: Annotated[Path, typer.Argument(help="Folder to copy it into.")] = Path(),
) -> None:
    """Copy a preset to a folder of yours, to edit."""
    for file in _preset_files(name):
        to.mkdir(parents=True, exist_ok=True)
        console.print(str(shutil.copy(file, to)), soft_wrap=True)


@zoo_app.command("path")
def zoo_path_(name: Annotated[str, typer.Argument(help="Model name.")] = "base") -> None:
    """Print where an embedded model lies."""
    from evomerge.models.zoo import zoo_path

    console.print(str(zoo_path(name)), soft_wrap=True)


@zoo_app.command("build")
def zoo_build(
    out: Annotated[Path, typer.Option(help="Folder to write models and tasks to.")],
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
) -> None:
    """Train the embedded models again and generate their tasks; minutes on two cores."""
    from evomerge.models.zoo.build import build_zoo

    build_zoo(out, seed=seed, progress=notes.print)


def _describe(found: type[Method]) -> None:
    formula = escape(found.formula)
    console.print(f"[bold]{found.name}[/]: {found.summary}\n\n  {formula}\n", soft_wrap=True)
    rows = [
        (
            p.name,
            f"{p.default} ({' | '.join(p.choices)})" if p.choices else str(p.default),
            "per expert" if p.per_expert else "shared",
            p.help,
        )
        for p in found.parameters().values()
    ]
    print_table("", ["parameter", "default", "", "meaning"], rows)
    console.print(f"\nneeds a base: {'yes' if found.needs_base else 'no'}\nsource: {found.source}")
    if found.covers:
        console.print(f"also published as: {', '.join(found.covers)}")


def _preset_files(name: str) -> list[Path]:
    from evomerge.config.presets import PRESET_KINDS, Presets
    from evomerge.errors import ConfigError

    presets = Presets()
    files = [presets.names(kind).get(name) for kind in PRESET_KINDS]
    found = [file for file in files if file is not None]
    if not found:
        raise ConfigError(f"expected a preset that 'evomerge presets list' names, got {name!r}")
    return found
