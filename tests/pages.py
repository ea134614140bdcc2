"""Blocks of the pages in ``docs/``, and how a page is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "ROOT", "Block", "blocks", "run_page"]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_FENCED = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^\1```$', flags=re.M | re.S)


@dataclass(frozen=True)
class Block:
    """Fenced text.

    Attributes:
        language: As written behind the fence; may be empty.
        file: Where the page says that the text goes; ``None`` if it is no file.
        text: What is inside.
    """

    language: str
    file: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """List the fenced blocks of a page."""
    found = _FENCED.finditer(page.read_text(encoding="utf-8"))
    return [Block(match[2], match[3], match[4]) for match in found]


def run_page(page: Path, folder: Path) -> dict[str, object]:
    """Write the files that a page shows into a folder, then run its Python, in order.

    Args:
        page: With blocks.
        folder: The current one.

    Returns:
        The names that its code has made.
    """
    for block in blocks(page):
        if block.file is not None:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text, encoding="utf-8")
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "python" and block.file is None:
            exec(compile(block.text, page.name, "exec"), names)
    return names
