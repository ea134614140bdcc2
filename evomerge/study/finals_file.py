"""The finals as JSON in the study folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evomerge.evaluation.suite import REPORT_ONLY
from evomerge.study.constraints import finals_note
from evomerge.study.finals import Finals
from evomerge.study.folder import write_atomically
from evomerge.study.records import FinalRecord, Objective, ReportOnly

__all__ = ["read_finals", "write_finals"]


def write_finals(path: Path, finals: Finals, constraints: Sequence[str] = ()) -> None:
    """Write the finals, with a note for people where constraints are violated.

    Args:
        path: The file.
        finals: As ``run_finals`` returns them.
        constraints: Their names, in the order of the violations.
    """
    note = finals_note(finals.records, constraints)
    content = {"schema_version": 1, "note": note, **asdict(finals)}
    write_atomically(path, json.dumps(content, indent=1))


def read_finals(path: Path) -> Finals:
    """Read what ``write_finals`` wrote; empty if the finals were not run."""
    if not path.is_file():
        return Finals()
    content = json.loads(path.read_text())
    unseen = content.get(REPORT_ONLY, {"measures": [], "records": []})
    measures = tuple(Objective(**row) for row in unseen["measures"])
    return Finals(_records(content["records"]), ReportOnly(measures, _records(unseen["records"])))


def _records(rows: Sequence[Mapping[str, Any]]) -> tuple[FinalRecord, ...]:
    return tuple(FinalRecord(**{key: _frozen(value) for key, value in row.items()}) for row in rows)


def _frozen(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value
