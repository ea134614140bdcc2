"""The log of a study: one JSON object per line, of all that its drivers did and when."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path

from evomerge.secrets import without_secrets

__all__ = ["StudyLog"]

_log = logging.getLogger(__name__)
_MOST_BYTES = 64 << 20  # some 500,000 lines; then the file before it is dropped


class StudyLog:
    """Appends lines to a file; nothing of a study depends on them.

    A line that a killed driver left unfinished stays alone on its line. A file that has grown large
    is renamed ``log.1.jsonl``, in place of the one before. Passwords and tokens are masked. What
    cannot be written, say because the disk is full, is left out with one warning.

    Args:
        path: The file; ``None``: nothing is kept.
        most_bytes: When the next file begins.
    """

    def __init__(self, path: Path | None, most_bytes: int = _MOST_BYTES) -> None:
        self._path, self._most_bytes = path, most_bytes
        self._is_broken = False
        self._begun = False

    def write(
        self, event: str, trial: int | None = None, worker: int | None = None, **facts: object
    ) -> None:
        """Append one event.

        Args:
            event: What happened.
            trial: To which trial.
            worker: On which worker, by its number in this run.
            **facts: What else is known, as JSON; ``None`` and what is empty is left out.
        """
        if self._path is None or self._is_broken:
            return
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        content = {"time": time, "event": event, "trial": trial, "worker": worker, **facts}
        known = {k: value for k, value in content.items() if value not in (None, "", {}, [], ())}
        line = without_secrets(json.dumps(known, ensure_ascii=False)) + "\n"
        try:
            self._append(self._path, line.encode())
        except OSError as err:
            self._is_broken = True
            _log.warning("%s is not written any more: %s", self._path, err.strerror or err)

    def _append(self, path: Path, line: bytes) -> None:
        """Write a line at once, so that no other driver's comes in between."""
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(file).st_size
            if not self._begun and size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line
            self._begun = True
            os.write(file, line)
        finally:
            os.close(file)
        if size > self._most_bytes:
            os.replace(path, path.with_suffix(f".1{path.suffix}"))
