"""Item scores on disk: one parquet file per trial and split, written atomically.

A killed process leaves either the whole file or none; readers see one table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from evomerge.evaluation.scores import ItemScore

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ItemStore"]

_SCHEMA = pa.schema(
    [
        ("trial", pa.int32()),
        ("split", pa.string()),
        ("task", pa.string()),
        ("item", pa.int32()),
        ("metric", pa.string()),
        ("score", pa.float64()),
    ],
    metadata={"schema_version": "1"},
)


class ItemStore:
    """The item scores of one study.

    Args:
        folder: Created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, trial: int, split: str, items: Sequence[ItemScore]) -> None:
        """Store the item scores of one trial on one split, replacing earlier ones.

        Args:
            trial: Trial number.
            split: Split name.
            items: One per task, item and metric.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "trial": [trial] * len(items),
                "split": [split] * len(items),
                "task": [item.task for item in items],
                "item": [item.item for item in items],
                "metric": [item.metric for item in items],
                "score": [item.score for item in items],
            },
            schema=_SCHEMA,
        )
        path = self._folder / f"{trial:06d}.{split}.parquet"
        partial = path.with_suffix(".partial")
        pq.write_table(table, partial, compression="zstd")
        os.replace(partial, path)

    def read_trial(self, trial: int, split: str) -> list[ItemScore]:
        """Read the item scores of one trial on one split; none if they are not stored."""
        path = self._folder / f"{trial:06d}.{split}.parquet"
        if not path.is_file():
            return []
        rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
        return [ItemScore(r["task"], r["item"], r["metric"], r["score"]) for r in rows]

    def read(self) -> pd.DataFrame:
        """Read everything stored.

        Returns:
            Columns ``trial, split, task, item, metric, score``; one row per score.
        """
        files = sorted(self._folder.glob("*.parquet")) if self._folder.is_dir() else []
        if not files:
            return cast("pd.DataFrame", _SCHEMA.empty_table().to_pandas())
        return cast("pd.DataFrame", ds.dataset(files, schema=_SCHEMA).to_table().to_pandas())
