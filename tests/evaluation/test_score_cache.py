"""A cache that is damaged, or cannot be used, costs time and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from evomerge import cache
from evomerge.evaluation.score_cache import ScoreCache
from evomerge.evaluation.scores import ItemScore, MetricValue, Scores
from evomerge.fingerprint import digest_of

SCORES = Scores(
    {"t": {"acc": MetricValue(0.5, 0.1, 40)}},
    tuple(ItemScore("t", i, "acc", i % 2 * 1.0, 0.1 * i, i, 0.01) for i in range(40)),
    1.0,
)
DIGEST = digest_of("recipe")


def test_an_entry_with_any_flipped_bit_is_dropped(tmp_path: Path) -> None:
    kept = ScoreCache(tmp_path)
    kept.store(DIGEST, SCORES)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert kept.load(DIGEST) is None
        assert not file.exists()
    kept.store(DIGEST, SCORES)
    assert kept.load(DIGEST) == SCORES


def test_an_entry_cut_short_or_of_another_name_is_dropped(tmp_path: Path) -> None:
    kept, other = ScoreCache(tmp_path), digest_of("other recipe")
    kept.store(DIGEST, SCORES)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    whole = file.read_bytes()
    kept.store(other, SCORES)
    (theirs,) = (p for p in tmp_path.rglob("*") if p.is_file() and p != file)
    theirs.write_bytes(whole)
    assert kept.load(other) is None
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        assert kept.load(DIGEST) is None


def test_a_cache_that_cannot_be_used_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_said", set())
    (tmp_path / "file").write_text("no folder")
    broken = ScoreCache(tmp_path / "file" / "scores")
    with caplog.at_level(logging.WARNING):
        for i in range(3):
            broken.store(digest_of(i), SCORES)
            assert broken.load(digest_of(i)) is None
    assert len(caplog.records) == 1
    assert "the cache in" in caplog.text
    assert "is not used: Not a directory" in caplog.text
