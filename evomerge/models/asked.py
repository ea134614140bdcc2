"""What transformers' models tell about checkpoints is asked once per machine: asking takes seconds.

An answer is kept for a question, a version of transformers and the code that asks here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from evomerge.cache import cache_folder, read_entry, write_entry
from evomerge.fingerprint import digest_of

__all__ = ["asked_once"]

_Answer = TypeVar("_Answer")


def asked_once(
    kind: type[_Answer], ask: Callable[[], _Answer | None], *question: object
) -> _Answer | None:
    """Return what was answered before, by any process; else ask.

    Args:
        kind: Dataclass of the answer: numbers, strings, and mappings and tuples of them.
        ask: Builds a model of transformers; ``None`` where it has none, which is not kept, since
            another package may be all that is missing.
        question: All that the answer depends on beside transformers and our code, as JSON.
    """
    folder = cache_folder("structures")
    if folder is None or _is_unreleased():
        return ask()
    file = folder / digest_of(kind.__name__, version("transformers"), _code(), *question)
    entry = read_entry(file)
    if entry is not None:
        with suppress(ValidationError):
            return TypeAdapter(kind).validate_json(entry)
    answer = ask()
    if answer is not None:
        write_entry(file, TypeAdapter(kind).dump_json(answer))
    return answer


def _is_unreleased() -> bool:
    """Whether transformers may change and keep its version."""
    return "dev" in version("transformers")


@functools.cache
def _code() -> str:
    """Name the state of the files that ask: all of this room."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest_of([file.read_text(encoding="utf-8") for file in files])
