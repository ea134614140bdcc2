"""The finals as JSON in the study folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from evomerge.schema import parse
from evomerge.study.constraints import finals_note
from evomerge.study.finals import Finals
from evomerge.study.folder import write_atomically
from evomerge.study.json_files import read_json_or_warn
from evomerge.study.records import FinalRecord

__all__ = ["read_finals", "write_finals"]

_PARTS = {field.name for field in fields(Finals)}


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


def read_finals(path: Path, n_objectives: int | None = None) -> Finals:
    """Read what ``write_finals`` wrote; empty if the finals were not run, or must be run again.

    Args:
        path: The file.
        n_objectives: How many values a record must have; absent: any number.
    """

    def make(content: Any) -> Finals:
        finals = parse(Finals, {k: v for k, v in content.items() if k in _PARTS})
        _require_counts(finals.records, n_objectives)
        _require_counts(finals.report_only.records, len(finals.report_only.measures))
        return finals

    instead = "'evomerge resume DIR' runs the finals again"
    return read_json_or_warn(path, make, instead) or Finals()


def _require_counts(records: Sequence[FinalRecord], n: int | None) -> None:
    for record in records:
        if not len(record.values) == len(record.stderr) == (n or len(record.values)):
            raise ValueError(f"expected a value and an error bar for each of {n} metrics")
