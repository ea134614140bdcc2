"""The log of a study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.study.log import StudyLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_is_one_object_with_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = StudyLog(path)
    log.write("started", trial=0, worker=3, text="")
    log.write("told", 0, values=[0.5], error=None)
    first, second = lines(path)
    assert first.keys() == {"time", "event", "trial", "worker"}
    assert (first["event"], first["trial"], first["worker"]) == ("started", 0, 3)
    assert second["values"] == [0.5]
    assert "error" not in second
    assert str(first["time"]).endswith("+00:00")


def test_a_torn_line_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "asked"}\n{"event": "to')
    log = StudyLog(path)
    log.write("asked", 1)
    log.write("asked", 2)
    whole, torn, *rest = path.read_text().splitlines()
    assert json.loads(whole) == {"event": "asked"}
    assert torn == '{"event": "to'
    assert [json.loads(line)["trial"] for line in rest] == [1, 2]


def test_secrets_are_masked_and_the_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = StudyLog(path, most_bytes=500)
    for trial in range(100):
        log.write("failed", trial, error=f"postgresql://me:s3cret@host and hf_{'a' * 24}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.1.jsonl", "log.jsonl"]
    text = path.read_text() + (tmp_path / "log.1.jsonl").read_text()
    assert "s3cret" not in text
    assert "hf_a" not in text
    assert len(text) < 2000
    assert lines(path)[-1]["trial"] == 99


def test_a_log_that_cannot_be_written_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    path.mkdir()
    log = StudyLog(path)
    log.write("asked", 0)
    log.write("asked", 1)
    assert len(caplog.records) == 1
    assert "is not written any more" in caplog.text
