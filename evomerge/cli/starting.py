"""The command that writes a first experiment: ``init``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.terminal import console, notes
from evomerge.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(init)


def init(
    out: Annotated[Path, typer.Argument(help="Experiment file to write.")] = Path("my.yaml"),
    base: Annotated[str | None, typer.Option(help="zoo:NAME, folder or Hub id.")] = None,
    expert: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MODEL", help="An expert; repeatable.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="lm-eval tasks, as NAME,NAME.")] = None,
    include_path: Annotated[Path | None, typer.Option(help="Folder of task YAML.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="How long it may take.")] = 1.0,
) -> None:
    """Write a first experiment that fits: asks for what is not given, and times a trial."""
    if out.exists():
        raise ConfigError(f"expected no file at {out}, got one; name another")
    base = base or _ask("--base MODEL", "Base model (zoo:NAME, a folder, a Hub id)")
    experts = _experts(expert or _ask("--expert NAME=MODEL", "Experts (NAME=MODEL …)").split())
    names = _ask("--tasks NAME,NAME", "lm-eval tasks (NAME,NAME)") if tasks is None else tasks
    from evomerge.api.starting import Wanted, first_experiment

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    with notes.status("opening models and tasks, and timing a trial"):
        text = first_experiment(Wanted(base, experts, wanted, include_path, hours), out)
    out.write_text(text, encoding="utf-8")
    console.print(f"{out} written; 'evomerge run {out}' searches", soft_wrap=True)


def _ask(option: str, question: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(f"expected {option}, got none; on a terminal it is asked for")
    try:
        return str(typer.prompt(question, err=True))
    except typer.Abort:
        raise KeyboardInterrupt from None


def _experts(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (name, _, model) in zip(given, pairs, strict=True) if not model]:
        raise ConfigError(f"expected experts as NAME=MODEL, got {', '.join(map(repr, wrong))}")
    return {name: model for name, _, model in pairs}
