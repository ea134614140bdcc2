"""docs/inventory.md, written of the table and of what there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evomerge.methods.registry import method, method_names
from evomerge.schema import parse_yaml
from tests.inventory.places import shown
from tests.pages import DOCS

__all__ = ["PAGE", "System", "page_text", "systems"]

PAGE = DOCS / "inventory.md"
_TABLE = Path(__file__).with_name("systems.yaml")
_HEAD = """\
# All systems of the literature

What evomerge is measured against: {total} systems that merge, average or search merges, or say how
to judge them. {here} are here, {part} of them in part, {out} are
[out of scope](#out-of-scope).

This page is generated: `make inventory`. Every place and every test that it names exists, which
tests make sure of; another merges a recipe of every method.

| system | where it lives | published | shown by |
|---|---|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class System:
    """One entry of the table; see there."""

    name: str
    source: str = ""
    at: tuple[str, ...] = ()
    part: str = ""
    note: str = ""
    out: str = ""
    tests: tuple[str, ...] = ()

    @property
    def published(self) -> str:
        """Where it was published; else where its first method was."""
        own = [place.removeprefix("method ") for place in self.at if place.startswith("method ")]
        return self.source or next(method(name).source for name in own)


def systems() -> tuple[System, ...]:
    """Read the table."""
    rows = parse_yaml(f"rows:\n{_TABLE.read_text(encoding='utf-8')}")["rows"]
    lists = ("at", "tests")
    return tuple(
        System(**{k: tuple(v) if k in lists else v for k, v in row.items()}) for row in rows
    )


def page_text() -> str:
    """Write the page."""
    rows = systems()
    here = [row for row in rows if row.at]
    out = [row for row in rows if row.out]
    head = _HEAD.format(
        total=len(rows),
        here=len(here),
        part=sum(bool(row.part) for row in here),
        out=len(out),
    )
    lines = [
        *(_row(row) for row in here),
        *("", "## Out of scope", "", "| system | why | published |", "|---|---|---|"),
        *(f"| {row.name} | {row.out} | {row.published} |" for row in out),
        *("", "## Other methods", "", "Methods that are none of the systems above."),
        *("", "| method | what it does | published |", "|---|---|---|"),
        *_others(rows),
    ]
    return head + "\n".join(lines) + "\n"


def _row(row: System) -> str:
    where = ", ".join(map(shown, row.at)) + "".join(
        f"; {text}" for text in (row.part, row.note) if text
    )
    tests = ", ".join(f"`{test.removeprefix('tests/')}`" for test in row.tests)
    return f"| {row.name} | {where} | {row.published} | {tests} |"


def _others(rows: tuple[System, ...]) -> Iterator[str]:
    named = {place for row in rows for place in row.at}
    for name in method_names():
        if f"method {name}" not in named:
            found = method(name)
            yield f"| `{name}` | {found.summary} | {found.source} |"
