"""Finished searches, kept in the repository as they end: one JSON line each.

The latest of its key counts.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.results import setting
from tests.benchmarks.searches.looks import Progress

__all__ = ["ROWS", "Key", "Row", "keep", "read"]

ROWS = Path(__file__).parent / "measured.jsonl"
_DIGITS = 4


@dataclass(frozen=True)
class Key:
    """Which search it was.

    Attributes:
        case: Its name.
        trials: Its budget.
        method: Sampler or other tool.
        seed: Of the search.
    """

    case: str
    trials: int
    method: str
    seed: int


@dataclass(frozen=True)
class Row:
    """What came of it.

    Attributes:
        progress: Look by look.
        genes: That could vary.
        setting: Machine and versions.
        load: Load average of the machine at the end.
    """

    progress: Progress
    genes: int
    setting: str
    load: float


def keep(key: Key, progress: Progress, genes: int, path: Path = ROWS) -> None:
    """Append a finished search."""
    row = Row(_rounded(progress), genes, setting(), round(os.getloadavg()[0], 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(key), **asdict(row)}) + "\n")


def _rounded(progress: Progress) -> Progress:
    columns: dict[str, list[Any]] = asdict(progress)
    return Progress(**{name: [round(x, _DIGITS) for x in of] for name, of in columns.items()})


def read(path: Path = ROWS) -> dict[Key, Row]:
    """Read every finished search."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        row = json.loads(line)
        key = Key(*(row.pop(name) for name in Key.__dataclass_fields__))
        found[key] = Row(**{**row, "progress": Progress(**row["progress"])})
    return found
