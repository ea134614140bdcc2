"""Where a system may live, and whether that is there."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection
from importlib.util import find_spec

import typer

from evomerge.cli.main import app
from evomerge.config.presets import Presets
from evomerge.methods.modifiers import MODIFIERS
from evomerge.methods.registry import method_names
from evomerge.samplers import sampler_names
from tests.pages import DOCS, ROOT

__all__ = ["is_place", "is_test", "shown"]


def is_place(place: str) -> bool:
    """Tell whether ``KIND NAME`` is there; of a page, whether it has the heading.

    Raises:
        KeyError: There are no places of that kind.
    """
    kind, _, name = place.partition(" ")
    if kind == "module":
        return _is_module(name)
    if kind == "page":
        return _has_heading(name)
    return name in _KINDS[kind]()


def is_test(test: str) -> bool:
    """Tell whether ``FILE`` or ``FILE::FUNCTION`` is there."""
    file, _, function = test.partition("::")
    if not (ROOT / file).is_file():
        return False
    names = {n.name for n in ast.parse((ROOT / file).read_text()).body if hasattr(n, "name")}
    return function in names if function else any(name.startswith("test_") for name in names)


def shown(place: str) -> str:
    """Write a place for the page."""
    kind, _, name = place.partition(" ")
    if kind == "page":
        return f"[{name.partition('#')[0]}]({name})"
    return f"`evomerge {name}`" if kind == "command" else f"{kind} `{name}`"


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False


def _has_heading(name: str) -> bool:
    page, _, anchor = name.partition("#")
    text = (DOCS / page).read_text(encoding="utf-8") if (DOCS / page).is_file() else ""
    titles = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    kept = ["".join(c for c in title.lower() if c.isalnum() or c in " -_") for title in titles]
    return bool(text) and (not anchor or anchor in [title.replace(" ", "-") for title in kept])


def _presets(kind: str) -> Callable[[], Collection[str]]:
    return lambda: Presets().names(kind)


def _commands() -> Collection[str]:
    found: Collection[str] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


_KINDS: dict[str, Callable[[], Collection[str]]] = {
    "method": method_names,
    "modifier": lambda: MODIFIERS,
    "sampler": sampler_names,
    "space": _presets("search_spaces"),
    "experiment": _presets("experiments"),
    "evaluator": _presets("evaluators"),
    "command": _commands,
}
