"""What files hold is read once, and never taken from a file that was written to since."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from evomerge import fingerprint as module
from evomerge.fingerprint import digest_of, fingerprint, stamp


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, in order; every file counts as settled."""
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_SETTLED_S", -1.0)
    found: list[Path] = []
    original = module._hashed
    monkeypatch.setattr(module, "_hashed", lambda f: (found.append(f), original(f))[1])
    return found


def test_a_file_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"one")
    assert fingerprint(file) == fingerprint(file)
    assert reads == [file]


def test_the_content_counts_and_neither_place_nor_age(tmp_path: Path, reads: list[Path]) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    os.utime(tmp_path / "b", (1, 1))
    (tmp_path / "c").write_bytes(b"two")
    a, b, c = (tmp_path / name for name in "abc")
    assert fingerprint(a) == fingerprint(b) != fingerprint(c)
    assert fingerprint(a, c) == fingerprint(b, c) != fingerprint(c, a)
    assert stamp(a) != stamp(b)


def test_a_file_rewritten_with_its_old_size_and_time_is_read_again(
    tmp_path: Path, reads: list[Path]
) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    before = fingerprint(file)
    file.write_bytes(b"two")
    os.utime(file, (1, 1))
    assert fingerprint(file) != before
    file.write_bytes(b"one")
    assert fingerprint(file) == before


def test_a_file_written_just_now_is_read_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_S", 3600.0)
    file = tmp_path / "model"
    file.write_bytes(b"one")
    fingerprint(file)
    fingerprint(file)
    assert reads == [file, file]


def test_what_is_remembered_is_not_taken_from_a_damaged_entry(
    tmp_path: Path, reads: list[Path]
) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"one")
    before = fingerprint(file)
    (entry,) = (tmp_path / "cache" / "fingerprints").iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"x")
    assert fingerprint(file) == before
    assert reads == [file, file]


def test_functions_are_named_alike_in_every_process() -> None:
    assert digest_of({"f": len}) == digest_of({"f": len}) != digest_of({"f": max})
    parts = [partial(int, base=base) for base in (2, 2, 8)]
    assert digest_of(parts[0]) == digest_of(parts[1]) != digest_of(parts[2])
