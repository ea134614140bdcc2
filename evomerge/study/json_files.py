"""JSON files of a study: a damaged one is named, never taken for another or for a bug."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from evomerge.errors import ConfigError, StudyError

__all__ = ["MALFORMED", "read_json", "read_json_or_warn"]

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading raises where the content has another form than it was written in."""
_log = logging.getLogger(__name__)
T = TypeVar("T")


def read_json(path: Path, make: Callable[[Any], T]) -> T | None:
    """Read a file; ``None`` if there is none.

    Args:
        path: The file.
        make: Builds what is wanted from the content; raises an ordinary error if it is not there.

    Raises:
        StudyError: The file is damaged.
    """
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (*MALFORMED, ConfigError) as err:
        raise StudyError(f"{path} is damaged: {_reason(err)}") from err


def read_json_or_warn(path: Path, make: Callable[[Any], T], instead: str) -> T | None:
    """Read a file that can be done without: a damaged one counts as none, with a warning.

    Args:
        path: The file.
        make: As that of ``read_json``.
        instead: What happens then, for people.
    """
    try:
        return read_json(path, make)
    except StudyError as err:
        _warn_once(f"{err}; {instead}")
        return None


@cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


def _reason(err: Exception) -> str:
    """Say what is wrong in one line; JSON's own errors name the line of the file."""
    if isinstance(err, json.JSONDecodeError):
        return str(err)
    if isinstance(err, LookupError):
        return f"it lacks {err}"
    if isinstance(err, (TypeError, AttributeError, RecursionError)):
        return "its content has another form than it was written in"
    return str(err.faults[0] if isinstance(err, ConfigError) else err).partition("\n")[0]
