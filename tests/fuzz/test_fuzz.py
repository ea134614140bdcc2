"""Damaged inputs of every kind, few of each; ``make fuzz`` reads many."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.fuzz import guard
from tests.fuzz.guard import BAD, Finding, Fuzzed, fuzz
from tests.fuzz.model_inputs import MODEL_KINDS
from tests.fuzz.study_inputs import STUDY_KINDS
from tests.fuzz.yaml_inputs import YAML_KINDS

_KINDS = [(name, kind, n) for kinds, n in ((YAML_KINDS, 40), (MODEL_KINDS, 6), (STUDY_KINDS, 4))
          for name, kind in kinds.items()]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path_factory.getbasetemp() / "fuzz-cache"))


@pytest.mark.parametrize(("name", "kind", "n"), _KINDS, ids=[name for name, _, _ in _KINDS])
def test_a_damaged_input_is_read_or_refused(
    name: str, kind: Fuzzed, n: int, tmp_path: Path
) -> None:
    found = list(fuzz(kind, name, n, tmp_path))
    assert [f.seed for f in found] == list(range(n))
    assert not [f for f in found if f.outcome in BAD]
    assert any(f.outcome == "refused" for f in found) or n < 40


def test_what_must_not_be_is_seen(tmp_path: Path) -> None:
    """Readers that do what none may: each is found out."""

    def open_outside(folder: Path) -> None:
        (folder.parent / "outside" / "config.json").read_bytes()

    def write_outside(folder: Path) -> None:
        (folder.parent / "written").write_text("x")

    def fill_memory(folder: Path) -> None:
        bytearray(1 << 40)

    def say_secret(folder: Path) -> None:
        print("warning: s3cr3tpw")

    def fail(folder: Path) -> None:
        raise KeyError("x")

    readers = {open_outside: "escape", write_outside: "escape", fill_memory: "memory",
               say_secret: "secret", fail: "traceback"}  # fmt: skip
    for reader, outcome in readers.items():
        (one,) = _findings(reader, tmp_path / reader.__name__)
        assert one.outcome == outcome, one


def test_a_reader_that_does_not_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_PATIENCE_S", 1.0)
    (one,) = _findings(lambda folder: time.sleep(999), tmp_path)
    assert one.outcome == "hang"


def _findings(reader: object, root: Path) -> list[Finding]:
    calls: list[Path] = []

    def read(folder: Path) -> None:
        calls.append(folder)
        if len(calls) > 1:  # the first one is sound
            reader(folder)  # type: ignore[operator]

    def damage(folder: Path, rng: random.Random) -> None:
        assert (folder / "x").is_file()

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "x").write_text("x")

    return list(fuzz(Fuzzed(make, damage, read), "self", 1, root))
