"""Statistics of one tensor are measured once: kept in memory, and on disk with a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.statistics.cache import StatisticsCache
from evomerge.statistics.content import Content, Origin
from evomerge.statistics.name import StatisticName
from evomerge.statistics.reading import TensorReader
from evomerge.statistics.records import from_arrays, to_arrays

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
        record = None if arrays is None else from_arrays(kind, arrays)
        if record is None:
            record = measure()
            self._cache.store(statistic, contents, to_arrays(record))
        return record
