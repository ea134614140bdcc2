"""Statistics as plain arrays and back, for the disk cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_arrays", "to_arrays"]

_Record = TypeVar("_Record")


def to_arrays(record: Any) -> dict[str, NDArray[np.generic]]:
    """Turn a dataclass of arrays, numbers and tuples of numbers into arrays by field name."""
    return {field.name: np.asarray(getattr(record, field.name)) for field in fields(record)}


def from_arrays(kind: type[_Record], arrays: Mapping[str, NDArray[np.generic]]) -> _Record | None:
    """Rebuild a dataclass from its arrays; ``None`` if they are not those of its fields."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if sorted(names) != sorted(arrays):
        return None
    return kind(**{name: _plain(hints[name], arrays[name]) for name in names})


def _plain(hint: object, array: NDArray[np.generic]) -> object:
    if hint in (int, float):
        return array.item()
    return tuple(array.tolist()) if hint == tuple[float, ...] else array
