"""The journal file of a study: one JSON record per line, written together, never changed.

A line is whole or it is not there: what a killed writer left without its end is passed over, and
cut off before anything follows it. Every record says which line it is, so that lines that were cut
out are missed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from optuna.storages.journal import JournalFileOpenLock

from evomerge.errors import StudyError

__all__ = ["Journal", "Record"]

Record = dict[str, Any]
"""What a line says, as JSON."""

_LINE = "line"  # of a record, from 1
_CHUNK = 2**16  # bytes that are parsed at once: with what becomes of them they stay in a cache
_parser = msgspec.json.Decoder()  # three times as fast as Python's own


@dataclass(frozen=True)
class _Stamp:
    """What is another one when a file was written or replaced."""

    file: int = 0
    bytes: int = 0
    written: int = 0  # nanoseconds

    @classmethod
    def of(cls, file: Path | int) -> _Stamp:
        found = os.stat(file)
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


class Journal:
    """A file of records, for one process that follows it and may write.

    Args:
        path: The file; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = JournalFileOpenLock(str(path))
        self._n_read, self._end = 0, 0  # records, and the bytes they take
        self._seen = _Stamp()

    def read_on(self) -> Iterator[Sequence[Record]]:
        """Read what was written since the last call, some thousand records at a time.

        Raises:
            StudyError: A line is damaged, or lines before it are missing.
        """
        if not self._has_more():
            return
        with self._path.open("rb") as file:
            self._seen = _Stamp.of(file.fileno())
            while lines := _whole_lines(file, self._end):
                records = self._parsed(lines)
                yield records
                self._n_read += len(records)  # once they are taken in: what is wrong stays wrong
                self._end += len(lines)

    def is_unchanged(self) -> bool:
        """Tell whether nobody else has written to the file since it was read or written here."""
        try:
            return self._seen == _Stamp.of(self._path)
        except FileNotFoundError:
            return False

    def _has_more(self) -> bool:
        try:
            return os.stat(self._path).st_size > self._end
        except FileNotFoundError:
            return False

    def _parsed(self, lines: bytes) -> Sequence[Record]:
        """Parse lines, all in one go if that can be."""
        try:
            records: list[Record] = _parser.decode_lines(lines)
        except (ValueError, RecursionError):
            records = []
        if len(records) != lines.count(b"\n"):  # some line is not one record
            alone = lines.removesuffix(b"\n").split(b"\n")
            records = [self._parsed_alone(i, line) for i, line in enumerate(alone)]
        for i, record in enumerate(records):
            self._require_line(i, record)
        return records

    def _parsed_alone(self, i: int, line: bytes) -> Record:
        try:
            record: Record = json.loads(line)  # takes NaN, too, as it writes it
        except (ValueError, RecursionError):
            raise self.damaged(i) from None
        return record

    def _require_line(self, i: int, record: object) -> None:
        line = self._n_read + i + 1
        if not isinstance(record, dict):
            raise self.damaged(i)
        if (said := record.get(_LINE, line)) != line:
            raise StudyError(
                f"{self._path}, line {line}: expected record {line}, got {said!r}: lines were cut "
                "out or put in; restore the file"
            )

    def damaged(self, i: int) -> StudyError:
        """Make the error for a line that says nothing: the ``i``-th after those that were read."""
        return StudyError(f"{self._path}, line {self._n_read + i + 1} is damaged; restore the file")

    def again(self) -> Journal:
        """Return the same file, nothing of it read."""
        return Journal(self._path)

    def lock(self) -> None:
        """Keep other writers out until ``unlock``."""
        self._path.touch()
        self._lock.acquire()

    def unlock(self) -> None:
        """Let other writers in again."""
        self._lock.release()

    def append(self, records: Sequence[Record]) -> None:
        """Write records at once and wait for the disk; none of them if that fails.

        Call between ``lock`` and ``unlock``, with all read that is there.
        """
        numbered = ({**record, _LINE: self._n_read + i} for i, record in enumerate(records, 1))
        text = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in numbered)
        content = text.encode()
        with self._path.open("rb+") as file, _all_or_nothing(file.fileno(), self._end):
            file.seek(self._end)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            self._seen = _Stamp.of(file.fileno())
        self._n_read += len(records)
        self._end += len(content)


def _whole_lines(file: BinaryIO, start: int) -> bytes:
    """Read some lines; a last one without its end is being written, or never will be."""
    file.seek(start)
    found = file.read(_CHUNK) + file.readline()
    return found[: found.rfind(b"\n") + 1]


@contextmanager
def _all_or_nothing(file: int, end: int) -> Iterator[None]:
    """Cut a file after its whole lines, before the block and if it raises."""
    os.ftruncate(file, end)
    try:
        yield
    except BaseException:
        os.ftruncate(file, end)
        raise
