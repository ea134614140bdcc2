"""Item scores on disk: parquet files that a killed process leaves whole or not at all.

Each trial and split is written to a file of its own. When many have gathered they are joined into
one larger file, together with the joined files before it that are no larger: so there are few files
at any time, and a row is written again only when its file doubles. A file with a higher number
replaces the rows of lower ones for the same trial and split, so it does no harm if a killed process
leaves both a joined file and its parts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evomerge.errors import StudyError
from evomerge.evaluation.scores import ItemScore, Verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ItemStore"]

T = TypeVar("T")

_NAME = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("trial", pa.int32()),
        ("split", _NAME),
        ("task", _NAME),
        ("item", pa.int32()),
        ("metric", _NAME),
        ("score", pa.float64()),
        ("smooth", pa.float32()),
        ("tokens", pa.int32()),
        ("seconds", pa.float32()),
    ],
    metadata={"schema_version": "2"},
)
_LAST = 2**31 - 1  # trial that can be stored; a damaged file may name others
_MISSING = {"smooth": None, "tokens": 0, "seconds": 0.0}  # in files of version 1
_VERDICTS = "verdicts.jsonl"
_JOIN_AT = 64  # files of one trial each
_GROUP = 1 << 16  # rows of a file that are read or left out together


class ItemStore:
    """The item scores of one study; one process writes, any number read.

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
        columns = {
            "trial": [trial] * len(items),
            "split": [split] * len(items),
            **{name: [getattr(item, name) for item in items] for name in _SCHEMA.names[2:]},
        }
        self._replace(f"{trial:06d}.{split}.parquet", pa.table(columns, schema=_SCHEMA))
        singles = self._singles()
        if len(singles) >= _JOIN_AT:
            self._join(singles)

    def note(self, trial: int, split: str, verdicts: Sequence[Verdict]) -> None:
        """Write down what judges were asked and said, a line each; scores do not need it.

        Args:
            trial: Trial number.
            split: Split name.
            verdicts: In the order in which items were scored.
        """
        where = {"trial": trial, "split": split}
        lines = [json.dumps({**where, **asdict(one)}, ensure_ascii=False) for one in verdicts]
        if lines:
            with (self._folder / _VERDICTS).open("a", encoding="utf-8", errors="replace") as file:
                file.writelines(f"{line}\n" for line in lines)

    def read_trial(self, trial: int, split: str) -> list[ItemScore]:
        """Read the item scores of one trial on one split; none if they are not stored.

        Raises:
            StudyError: A file is damaged.
        """
        return _unless_joined_meanwhile(lambda: self._read_trial(trial, split))

    def _read_trial(self, trial: int, split: str) -> list[ItemScore]:
        own = self._folder / f"{trial:06d}.{split}.parquet"
        for path in [own] if own.is_file() else reversed(self._joined()):
            rows = [row for row in _read(path, [trial]).to_pylist() if row["split"] == split]
            if rows:
                return [ItemScore(*(row[name] for name in _SCHEMA.names[2:])) for row in rows]
        return []

    def read(self, trials: Collection[int] | None = None) -> pd.DataFrame:
        """Read everything stored.

        Args:
            trials: Only the scores of these.

        Returns:
            Columns ``trial, split, task, item, metric, score, smooth, tokens, seconds``; one row
            per score. Files of older versions lack the last three: NaN, 0 and 0.

        Raises:
            StudyError: A file is damaged.
        """
        table = _unless_joined_meanwhile(lambda: self._rows(trials))
        return cast("pd.DataFrame", table.to_pandas())

    def trials(self, split: str) -> set[int]:
        """List the trials that have item scores on a split.

        Raises:
            StudyError: A file is damaged.
        """
        table = _unless_joined_meanwhile(self._rows)
        of_it = table["trial"].filter(pc.equal(table["split"].cast("string"), split))
        return set(of_it.unique().to_pylist())

    def _rows(self, trials: Collection[int] | None = None) -> pa.Table:
        singles = self._singles()  # first: what is joined meanwhile must not be missed
        return self._table(self._joined() + singles, trials)

    def _singles(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.parquet")) if self._folder.is_dir() else []

    def _joined(self) -> list[Path]:
        return sorted(self._folder.glob("joined.*.parquet")) if self._folder.is_dir() else []

    def _join(self, singles: Sequence[Path]) -> None:
        """Join files of one trial each; parts go once the whole is on disk."""
        parts, joined = list(singles), self._joined()
        number = int(joined[-1].name.split(".")[1]) + 1 if joined else 0
        size = sum(path.stat().st_size for path in parts)
        while joined and joined[-1].stat().st_size <= size:
            size += joined[-1].stat().st_size
            parts.insert(0, joined.pop())
        self._replace(f"joined.{number:06d}.parquet", self._table(parts))
        for path in parts:
            path.unlink()

    def _replace(self, name: str, table: pa.Table) -> None:
        partial = self._folder / f"{name}.partial"
        with partial.open("wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=_GROUP)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._folder / name)

    @staticmethod
    def _table(files: Sequence[Path], trials: Collection[int] | None = None) -> pa.Table:
        """Read files; where several hold a trial and split, the last one counts."""
        tables = [_SCHEMA.empty_table(), *(_read(file, trials) for file in files)]
        table = pa.concat_tables(tables).unify_dictionaries()
        counts = _is_last(_keys(table), [len(one) for one in tables])
        return table if counts.all() else table.filter(pa.array(counts))


def _unless_joined_meanwhile(read: Callable[[], T]) -> T:
    """Read again if the process that writes has joined some of the files in between."""
    while True:
        try:
            return read()
        except FileNotFoundError:
            continue


def _read(path: Path, trials: Collection[int] | None = None) -> pa.Table:
    """Read a file of any version; of some trials only, if they are named."""
    if path.is_symlink():
        raise StudyError(f"expected item scores at {path}, got a link; put a copy in its place")
    try:
        wanted = None if trials is None else [("trial", "in", [n for n in trials if n <= _LAST])]
        table = pq.read_table(path, filters=wanted)
        table.validate(full=True)  # text that is none is found here, not where it is shown
        for name, value in _MISSING.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.array([value] * len(table)))
        table = table.select(_SCHEMA.names).cast(_SCHEMA)
        if table["trial"].null_count or table["split"].null_count:
            raise pa.ArrowInvalid("rows without a trial or split")
        return table
    except FileNotFoundError:
        raise
    except (OSError, KeyError, UnicodeDecodeError, pa.ArrowException) as err:
        raise StudyError(
            f"the item scores in {path} are damaged ({str(err).splitlines()[0]}); restore the file"
        ) from err


def _keys(table: pa.Table) -> NDArray[np.int64]:
    """Number (rows,) the pairs of trial and split."""
    split = table["split"].combine_chunks()
    trials = table["trial"].to_numpy().astype(np.int64)
    return np.asarray(trials * max(1, len(split.dictionary)) + split.indices.to_numpy())


def _is_last(keys: NDArray[np.int64], lengths: Sequence[int]) -> NDArray[np.bool_]:
    """Tell (rows,) which rows are of the last file, some rows long each, that has their key."""
    file = np.repeat(np.arange(len(lengths)), lengths)
    distinct, which = np.unique(keys, return_inverse=True)
    last = np.zeros(len(distinct), dtype=np.int64)
    np.maximum.at(last, which, file)
    return np.asarray(file == last[which])
