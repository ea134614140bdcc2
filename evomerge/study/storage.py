"""The Optuna storage of a study: a journal file in its folder, or a database."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from optuna.storages import BaseStorage

from evomerge.errors import StudyError
from evomerge.study.database import open_database
from evomerge.study.journal import Journal
from evomerge.study.trial_journal import TrialJournal

__all__ = ["open_storage", "repair_journal", "together", "writes_together"]

_last_opened: dict[Path, TrialJournal] = {}  # by file; one at most


def open_storage(journal: Path, url: str | None = None) -> BaseStorage:
    """Open the storage.

    Of a journal that this process has opened last nothing is read again, as long as nobody else has
    written to it.

    Args:
        journal: The journal file, used unless ``url`` is given.
        url: Database URL, e.g. ``postgresql://…``, for studies that several machines share;
            ``${NAME}`` in it stands for an environment variable.

    Raises:
        StudyError: The database cannot be opened, a variable is not set, or the journal is damaged.
    """
    return _open_journal(journal.absolute()) if url is None else open_database(url)


def _open_journal(file: Path) -> TrialJournal:
    if file not in _last_opened or not _last_opened[file].is_current():
        _last_opened.clear()
        _last_opened[file] = TrialJournal(Journal(file))
    return _last_opened[file]


@contextmanager
def together(storage: BaseStorage) -> Iterator[None]:
    """Write all that the block stores at once, at its end; a database writes as it goes."""
    with storage.batch() if isinstance(storage, TrialJournal) else nullcontext():
        yield


def writes_together(storage: BaseStorage) -> bool:
    """Tell whether ``together`` writes at once, as it does to a journal file."""
    return isinstance(storage, TrialJournal)


def repair_journal(journal: Path) -> None:
    """Clear away what a killed writer left: a half-written last line, a lock nobody holds.

    Call only under the study's own lock: a repair must not race with a writer.

    Raises:
        StudyError: The last line is whole, but no JSON: readers would take it for half-written, and
            what is written next would follow it.
    """
    Path(f"{journal}.lock").unlink(missing_ok=True)
    if not journal.is_file() or not journal.stat().st_size:
        return
    with journal.open("rb+") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
            start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
            last, size = content[start:end], len(content)
        if end != size:
            file.truncate(end)
    _require_record(journal, last)


def _require_record(journal: Path, last: bytes) -> None:
    try:
        json.loads(last or b"{}")
    except (ValueError, RecursionError):
        with journal.open("rb") as file:
            n_lines = sum(1 for _ in file)
        raise StudyError(
            f"{journal}, line {n_lines}, the last one, is damaged; restore the file"
        ) from None
