"""Recipes as they are stored: in a quarter of the bytes, and read when somebody looks."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

__all__ = ["Unread", "packed", "unpacked"]

T = TypeVar("T")


def packed(content: Mapping[str, Any]) -> str:
    """Write plain data as text: JSON, deflated, in base64."""
    text = json.dumps(content, separators=(",", ":"))
    return b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(stored: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Read what ``packed`` wrote; what earlier versions stored is plain data."""
    if not isinstance(stored, str):
        return stored
    content: Mapping[str, Any] = json.loads(zlib.decompress(b64decode(stored)))
    return content


class Unread(Mapping[str, Any], Generic[T]):
    """Plain data that is read on first use: of many trials a command looks at few recipes.

    Args:
        read: Reads it.
        of: What it is read of.
    """

    def __init__(self, read: Callable[[T], Mapping[str, Any]], of: T) -> None:
        self._read, self._of = read, of

    @cached_property
    def _content(self) -> Mapping[str, Any]:
        return self._read(self._of)

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return repr(dict(self))
