"""Output for people: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from evomerge.console import SafeConsole, notes
from evomerge.errors import Fault
from evomerge.secrets import without_secrets

__all__ = [
    "console",
    "forget_faults",
    "notes",
    "print_error",
    "print_faults",
    "print_json",
    "print_table",
    "value_text",
]

console = SafeConsole(highlight=False)
_LONGEST_ERROR = 2000  # characters
_printed: set[str] = set()  # faults, by this command


def print_error(line: str) -> None:
    """Print one error line on stderr, cut short where somebody's file went into it whole."""
    safe = without_secrets(line)
    text = safe if len(safe) <= _LONGEST_ERROR else f"{safe[:_LONGEST_ERROR]} …"
    notes.print(f"[bold red]error:[/] {_escape(text)}", soft_wrap=True)


def print_faults(faults: Iterable[Fault]) -> None:
    """Print a line for every fault that has none yet: the first ones do not wait for the last."""
    for line in map(str, faults):
        if line not in _printed:
            _printed.add(line)
            print_error(line)


def forget_faults() -> None:
    """Let faults be printed again, by another command."""
    _printed.clear()


def print_json(content: object) -> None:
    """Print one JSON document on stdout; numbers that are none become null, passwords ``***``."""
    json.dump(_shown(content), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, bold: int | None = None
) -> None:
    """Print a table on stdout.

    Args:
        title: Above the table.
        columns: Headings; columns of numbers are right-aligned.
        rows: Cells as text.
        bold: Row to stress.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        numeric = all(_is_number(row[i]) for row in rows)
        table.add_column(_escape(column), justify="right" if numeric else "left", overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*map(_escape, row), style="bold" if i == bold else None)
    if title:
        console.print(title, style="italic", soft_wrap=True, markup=False)
    console.print(table)


def value_text(value: float, stderr: float) -> str:
    """Format a value with its error bar."""
    return f"{value:.3f}" if math.isnan(stderr) else f"{value:.3f} ± {stderr:.3f}"


def _is_number(text: str) -> bool:
    """Tell figures, with error bar or unit, from words that begin with one."""
    return re.fullmatch(r"[-+–±.,%\d\s()]*[a-zA-Z]{0,3}", text) is not None


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _shown(content: object) -> object:
    if isinstance(content, str):
        return without_secrets(content)
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {without_secrets(str(key)): _shown(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_shown(value) for value in content]
    return content
