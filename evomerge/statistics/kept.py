"""Statistics of one tensor are measured once: kept in memory, and on disk with a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from evomerge.statistics.cache import StatisticsCache
from evomerge.statistics.content import Content, Origin
from evomerge.statistics.name import StatisticName
from evomerge.statistics.reading import TensorReader

__all__ = ["KeptStatistics"]

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class _Array:
    values: NDArray[np.generic]


class KeptStatistics:
    """Finds a statistic in memory or on disk, or has it measured.

    Args:
        reader: The tensor.
        origins: Where each model's tensor came from; ``None`` if unknown.
        cache: ``None`` keeps results in memory only.
    """

    def __init__(
        self,
        reader: TensorReader,
        origins: Sequence[Origin] | None,
        cache: StatisticsCache | None,
    ) -> None:
        self._reader = reader
        self._origins = origins
        self._cache = cache
        # By statistic and models; of a statistic with parameters, the last ones asked for.
        self._kept: dict[tuple[str, tuple[int, ...]], tuple[StatisticName | None, object]] = {}
        self._contents: dict[int, Content] = {}

    def array(
        self,
        statistic: str,
        models: tuple[int, ...],
        measure: Callable[[], NDArray[Any]],
        *parameters: object,
    ) -> NDArray[Any]:
        """Return a statistic that is an array; see ``record``."""
        record = self.record(statistic, models, _Array, lambda: _Array(measure()), *parameters)
        return record.values

    def record(
        self,
        statistic: str,
        models: tuple[int, ...],
        kind: type[_Record],
        measure: Callable[[], _Record],
        *parameters: object,
    ) -> _Record:
        """Return a statistic.

        Args:
            statistic: Its name.
            models: Numbers of the models it is about, in order.
            kind: Dataclass of the statistic: arrays, numbers, tuples of numbers.
            measure: Computes it.
            parameters: Of the statistic.
        """
        slot, name = (statistic, models), StatisticName(statistic, parameters)
        known, record = self._kept.get(slot, (None, None))
        if known != name:
            record = self._from_disk(name, models, kind, measure)
            self._kept[slot] = (name, record)
        return record  # type: ignore[return-value]

    def content(self, model: int) -> Content:
        """Return what a model's tensor holds, in short."""
        if model not in self._contents:
            origin = None if self._origins is None else self._origins[model]
            cache = self._cache or StatisticsCache(None)
            self._contents[model] = cache.content(origin, lambda: self._reader.tensor(model))
        return self._contents[model]

    def _from_disk(
        self,
        name: StatisticName,
        models: tuple[int, ...],
        kind: type[_Record],
        measure: Callable[[], _Record],
    ) -> _Record:
        if self._cache is None:
            return measure()
        # The same tensors mean something else with the first of them as the base.
        statistic = f"{name} base={self._reader.n_bases}"
        contents = tuple(self.content(model).digest for model in models)
        arrays = self._cache.load(statistic, contents)
        record = None if arrays is None else _from_arrays(kind, arrays)
        if record is None:
            record = measure()
            self._cache.store(statistic, contents, _to_arrays(record))
        return record


def _to_arrays(record: Any) -> dict[str, NDArray[np.generic]]:
    """Turn a dataclass of arrays, numbers and tuples of numbers into arrays by field name."""
    return {field.name: np.asarray(getattr(record, field.name)) for field in fields(record)}


def _from_arrays(kind: type[_Record], arrays: Mapping[str, NDArray[np.generic]]) -> _Record | None:
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
