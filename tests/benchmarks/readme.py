"""Tables of the README, written by the benchmarks between markers that name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["replace_blocks", "write_readme"]


def replace_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Put new content between ``<!-- bench:NAME -->`` and ``<!-- /bench -->``.

    Args:
        text: A Markdown file; what is outside the markers stays as it is.
        blocks: Content by name.

    Raises:
        ValueError: A block is not in the text exactly once.
    """
    for name, content in blocks.items():
        pattern = rf"(<!-- bench:{re.escape(name)} -->\n).*?(<!-- /bench -->)"
        body = f"{content.strip()}\n"
        text, n = re.subn(pattern, lambda m, body=body: m[1] + body + m[2], text, flags=re.DOTALL)
        if n != 1:
            raise ValueError(f"expected one block bench:{name}, found {n}")
    return text


def write_readme(blocks: Mapping[str, str], path: Path = Path("README.md")) -> None:
    """Rewrite the blocks of a file; see ``replace_blocks``."""
    path.write_text(replace_blocks(path.read_text(encoding="utf-8"), blocks), encoding="utf-8")
