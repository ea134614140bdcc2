"""Who drives a study that is in a database: an identity that stays with the study's folder."""

from __future__ import annotations

import json
import os
import platform
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone

from evomerge.schema import parse
from evomerge.study.folder import StudyFolder, write_atomically
from evomerge.study.json_files import read_json

__all__ = ["Identity", "driver_id", "identify", "shared_name"]


@dataclass(frozen=True)
class Identity:
    """One driver; the same after a restart.

    Attributes:
        id: A UUID: two machines may have folders of one path, and copies of one folder.
        study: Name of the study in the database.
        folder: Number of the folder in its file system; a copy has another.
        host: Of the latest start, for people.
        pid: Of the latest start, for people.
        started: When that was.
    """

    id: str
    study: str
    folder: int
    host: str
    pid: int
    started: str


def identify(folder: StudyFolder) -> Identity:
    """Name the driver that now starts in a folder, and keep the name there.

    Call only under the folder's lock.
    """
    before = _read(folder)
    inode = folder.root.stat().st_ino
    now = Identity(
        id=str(uuid.uuid4()),
        study=shared_name(folder),
        folder=inode,
        host=platform.node(),
        pid=os.getpid(),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    if before is not None and before.folder == inode:
        now = replace(now, id=before.id)
    write_atomically(folder.driver, json.dumps({"schema_version": 1, "driver": asdict(now)}))
    return now


def driver_id(folder: StudyFolder) -> str | None:
    """Return the id of the driver that last started in a folder; ``None`` if none has.

    Of a copy it is that of the original, whose trials up to then the copy holds, too.
    """
    before = _read(folder)
    return None if before is None else before.id


def shared_name(folder: StudyFolder) -> str:
    """Name a folder's study in a database: as the folder was named when the study began."""
    before = _read(folder)
    return folder.root.resolve().name if before is None else before.study


def _read(folder: StudyFolder) -> Identity | None:
    return read_json(folder.driver, lambda content: parse(Identity, content["driver"]))
