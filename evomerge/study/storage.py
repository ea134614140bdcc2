"""The Optuna storage of a study: a journal file in its folder, or a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage

from evomerge.errors import StudyError
from evomerge.optuna_internals import journal_backend
from evomerge.study.database import open_database
from evomerge.study.journal import BatchedJournal

__all__ = ["open_storage", "repair_journal", "together", "writes_together"]


def open_storage(journal: Path, url: str | None = None) -> BaseStorage:
    """Open the storage.

    Args:
        journal: The journal file, used unless ``url`` is given.
        url: Database URL, e.g. ``postgresql://…``, for studies that several machines share;
            ``${NAME}`` in it stands for an environment variable.

    Raises:
        StudyError: The database cannot be opened, a variable is not set, or the journal is damaged.
    """
    if url is not None:
        return open_database(url)
    backend = BatchedJournal(journal)
    try:
        return JournalStorage(backend)
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as err:
        raise backend.damaged() from err  # JSON, but no record of Optuna's


@contextmanager
def together(storage: BaseStorage) -> Iterator[None]:
    """Write all that the block stores at once, at its end; a database writes as it goes."""
    journal = _batched(storage)
    with nullcontext() if journal is None else journal.batch():
        yield


def writes_together(storage: BaseStorage) -> bool:
    """Tell whether ``together`` writes at once, as it does to a journal file."""
    return _batched(storage) is not None


def _batched(storage: BaseStorage) -> BatchedJournal | None:
    backend = journal_backend(storage) if isinstance(storage, JournalStorage) else None
    return backend if isinstance(backend, BatchedJournal) else None


def repair_journal(journal: Path) -> None:
    """Clear away what a killed writer left: a half-written last line, a lock nobody holds.

    Call only under the study's own lock: a repair must not race with a writer.

    Raises:
        StudyError: The last line is whole, but no JSON: readers would take it for half-written, and
            what is written next would follow it.
    """
    Path(f"{journal}.lock").unlink(missing_ok=True)
    _drop_torn_line(journal)
    _require_last_line(journal)


def _drop_torn_line(journal: Path) -> None:
    """Cut the file after its last newline: Optuna fails on a half-written last record."""
    if not journal.is_file():
        return
    with journal.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end != len(content):
            file.truncate(end)


def _require_last_line(journal: Path) -> None:
    lines = journal.read_bytes().splitlines() if journal.is_file() else []
    try:
        json.loads(lines[-1] if lines else "{}")
    except (ValueError, RecursionError):
        raise StudyError(
            f"{journal}, line {len(lines)}, the last one, is damaged; restore the file"
        ) from None
