"""The list of what is kept of experts beside a merge: read, and asked for one of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from evomerge.errors import ConfigError, did_you_mean
from evomerge.plain_yaml import placed_in
from evomerge.schema import parse, read_yaml

__all__ = ["load_list", "require_listed"]

_T = TypeVar("_T")


def load_list(kind: type[_T], path: Path, *, what: str, command: str) -> _T:
    """Read what is kept beside a merge.

    Args:
        kind: What the file says.
        path: The file.
        what: Is kept, in a word.
        command: Writes it.

    Raises:
        ConfigError: There is none, or the file is damaged.
    """
    if not path.is_file():
        raise ConfigError(
            f"expected a merge with {what}, got {path.parent} without {path.name}; 'evomerge "
            f"{command} RECIPE --out DIR' writes one"
        )
    with placed_in(path):
        return parse(kind, read_yaml(path))


def require_listed(expert: str, known: Collection[str], folder: Path, *, what: str) -> None:
    """Make sure that something is kept of an expert.

    Args:
        expert: Its name.
        known: Of whom something is.
        folder: Holds the merge.
        what: Is kept, in a word.

    Raises:
        ConfigError: Nothing is.
    """
    if expert not in known:
        raise ConfigError(
            f"expected an expert with {what} in {folder}, one of {', '.join(known)}, got "
            f"{expert!r}{did_you_mean(expert, known)}"
        )
