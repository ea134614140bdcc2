"""What people are shown on a terminal: without passwords, whoever prints it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from evomerge.secrets import without_secrets

__all__ = ["SafeConsole", "notes"]


class SafeConsole(Console):
    """A terminal on which texts, titles and tables have ``***`` for passwords and tokens."""

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """Make what is shown of a text, before it is cut into lines."""
        return super().render_str(without_secrets(text), *args, **options)


notes = SafeConsole(stderr=True, highlight=False)
"""Where people are told what is happening, since results go to standard output."""
