"""Where people are told what is happening: standard error, since results go to standard output."""

from __future__ import annotations

from rich.console import Console

__all__ = ["notes"]

notes = Console(stderr=True, highlight=False)
