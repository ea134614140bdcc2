"""A journal file whose records can be written together.

Optuna's journal waits for the disk after every record, and a trial of 100 genes has more than 100.
Every record says which line it is, so that lines that were cut out are missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock

from evomerge.errors import StudyError

__all__ = ["BatchedJournal"]

_LINE = "line"  # of a record, from 1; Optuna passes over keys that it does not know
Record = dict[str, Any]  # as Optuna writes it


class BatchedJournal(BaseJournalBackend):
    """Optuna's journal file, the same on disk, with one wait for the disk per batch.

    From the first record of a batch to its end this process holds the file's lock, so records keep
    the order in which they took effect here. A process that is killed meanwhile leaves none of
    them.

    Args:
        journal: The file; made if it is missing.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal
        self._lock = JournalFileOpenLock(str(journal))
        self._file = JournalFileBackend(str(journal), _NoLock())  # type: ignore[arg-type]
        self._n_read = 0  # records of the file that were read
        self._is_batch = False
        self._held: list[Record] = []

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hold back the records of the block and write them at its end, also if it raises."""
        self._is_batch = True
        try:
            yield
        finally:
            self._is_batch = False
            self._write_held()

    def read_logs(self, log_number_from: int) -> Iterator[Record]:
        """See ``BaseJournalBackend``.

        Raises:
            StudyError: A line is damaged, or lines before it are missing.
        """
        if self._held and log_number_from >= self._n_read:
            yield from self._held[log_number_from - self._n_read :]
            return
        self._n_read = log_number_from
        yield from self._read_on()
        yield from self._held

    def _read_on(self) -> Iterator[Record]:
        try:
            for record in self._file.read_logs(self._n_read):
                self._require_line(record)
                self._n_read += 1
                yield record
        except (ValueError, RecursionError):  # what follows the last record is no JSON
            raise self._damaged(self._n_read + 1) from None

    def _require_line(self, record: object) -> None:
        line = self._n_read + 1
        if not isinstance(record, dict):
            raise self._damaged(line)
        if (said := record.get(_LINE, line)) != line:
            raise StudyError(
                f"{self._path}, line {line}: expected record {line}, got {said!r}: lines were cut "
                "out or put in; restore the file"
            )

    def damaged(self) -> StudyError:
        """Make the error for the last record that was read, which is none of Optuna's."""
        return self._damaged(self._n_read)

    def _damaged(self, line: int) -> StudyError:
        return StudyError(f"{self._path}, line {line} is damaged; restore the file")

    def append_logs(self, logs: list[Record]) -> None:
        """See ``BaseJournalBackend``."""
        if self._is_batch:
            self._hold(logs)
            return
        self._hold(logs)
        self._write_held()

    def _hold(self, logs: list[Record]) -> None:
        if not self._held:
            self._lock.acquire()  # nobody else writes from here on
            self._read_to_end()
        for log in logs:
            self._held.append({**log, _LINE: self._n_read + len(self._held) + 1})

    def _read_to_end(self) -> None:
        try:
            for _ in self._read_on():
                pass
        except BaseException:
            self._lock.release()
            raise

    def _write_held(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._append(held)

    def _append(self, logs: list[Record]) -> None:
        try:
            self._file.append_logs(logs)
        finally:
            self._lock.release()


class _NoLock:
    """Stands in for the file's own lock, which is held already when records are written."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
