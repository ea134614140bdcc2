"""The files of a finished study, as the commands read them that show it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from evomerge.study.finals import Finals
from evomerge.study.finals_file import write_finals
from evomerge.study.records import FinalRecord
from tests.fuzz.guard import Fuzzed, command
from tests.fuzz.mutations import damage_bytes, damage_data, damage_text, damaged_json

__all__ = ["STUDY_KINDS"]

_KEPT = Path(__file__).parents[1] / "studies" / "schema_1"
_FINAL = FinalRecord(3, "search", "test", (0.5, 2.0), (0.1, 0.1), True, ())


def _make(folder: Path) -> None:
    shutil.copytree(_KEPT, folder)
    write_finals(folder / "study" / "finals.json", Finals((_FINAL,)))


def _read(folder: Path) -> None:
    study = folder / "study"
    for arguments in (("status", study), ("front", study)):
        command(*arguments)
    command("export", study, "--format", "recipe", "--out", folder / "recipe.yaml")


def _report(folder: Path) -> None:
    command("report", folder / "study")


def _journal(folder: Path, rng: random.Random) -> None:
    """Damage one record's data, lines, or bytes."""
    file = folder / "study" / "study.journal"
    lines = file.read_text().splitlines()
    at, kind = rng.randrange(len(lines)), rng.random()
    if kind < 0.6:
        lines[at] = json.dumps(damage_data(json.loads(lines[at]), rng))
    elif kind < 0.7:
        del lines[at : at + rng.choice((1, 1, 5, 1000))]
    elif kind < 0.8:
        lines[at:at] = [rng.choice((*lines, "", "{}", "[]", "null", "\0" * 99))]
    else:
        file.write_bytes(damage_bytes(file.read_bytes(), rng))
        return
    file.write_text("\n".join(lines) + "\n")


def _items(folder: Path, rng: random.Random) -> None:
    file = rng.choice(sorted((folder / "study" / "items").iterdir()))
    kind = rng.randrange(8)
    if kind == 0:
        file.rename(file.with_name(rng.choice(("x.parquet", "-1.search.parquet", "1.2.parquet"))))
    elif kind == 1:
        file.unlink()
        os.symlink("../../../outside/config.json", file)
    else:
        file.write_bytes(damage_bytes(file.read_bytes(), rng))


def _json(name: str) -> Callable[[Path, random.Random], None]:
    return lambda folder, rng: damaged_json(folder / "study" / name, rng)


def _experiment(folder: Path, rng: random.Random) -> None:
    file = folder / "study" / "experiment.yaml"
    text = file.read_text()
    if rng.random() < 0.8:
        file.write_text(damage_text(text, rng), encoding="utf-8")
    else:
        file.write_bytes(damage_bytes(text.encode(), rng))


STUDY_KINDS = {
    "study.journal": Fuzzed(_make, _journal, _read),
    "items": Fuzzed(_make, _items, _report),
    "finals.json": Fuzzed(_make, _json("finals.json"), _read),
    "timing.json": Fuzzed(_make, _json("timing.json"), _read),
    "experiment.yaml": Fuzzed(_make, _experiment, _read),
}
