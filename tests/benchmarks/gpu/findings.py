"""What a phase measured or checked: one line of a file each, written as it is found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Finding", "append", "read_findings"]


@dataclass(frozen=True)
class Finding:
    """One figure or one check.

    Attributes:
        what: What was measured or checked.
        value: The figure; of checks how many of their cases passed.
        unit: Of the figure; empty for ratios and counts.
        wanted: What it was to be; empty if it was measured only.
        is_right: Whether it was that; ``None`` if nothing was wanted.
        note: What else there is to say, e.g. which cases failed.
    """

    what: str
    value: float
    unit: str = ""
    wanted: str = ""
    is_right: bool | None = None
    note: str = ""


def append(file: Path, finding: Finding) -> None:
    """Add a finding to a file; it is there if the process dies in the next moment."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(finding)) + "\n")


def read_findings(file: Path) -> list[Finding]:
    """Read what a phase found; a last line that was cut off is passed over."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    whole, _, _ = text.rpartition("\n")
    return [Finding(**json.loads(line)) for line in whole.splitlines()]
