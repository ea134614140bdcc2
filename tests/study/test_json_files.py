"""JSON files of a study that were damaged: named, and done without where they can be made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.errors import StudyError
from evomerge.runs.compare import read_comparison
from evomerge.study.finals import Finals
from evomerge.study.finals_file import read_finals, write_finals
from evomerge.study.json_files import read_json
from evomerge.study.records import FinalRecord, Objective, ReportOnly
from evomerge.study.timing import read_timing

RECORD = FinalRecord(3, "search", "test", (0.5,), (float("nan"),), True, (0.25,))
FINALS = Finals(
    (RECORD,), ReportOnly((Objective("t", "acc", "maximize", "t"),), (RECORD,))
)  # fmt: skip
DAMAGED = [
    "[" * 100_000,
    "",
    "{",
    "[]",
    "{}",
    '{"comparison": 1, "records": [1], "ask": "x"}',
    '{"records": 3}',
]


def test_finals_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_finals(tmp_path / "finals.json", FINALS)
    assert repr(read_finals(tmp_path / "finals.json")) == repr(FINALS)  # NaN is not itself


@pytest.mark.parametrize("content", [c for c in DAMAGED if c != "{}"])
def test_damaged_finals_count_as_none_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "finals.json").write_text(content)
    for _ in range(2):
        assert read_finals(tmp_path / "finals.json") == Finals()
    (line,) = caplog.messages  # said once
    assert line.startswith(f"{tmp_path / 'finals.json'} is damaged: ")
    assert line.endswith("; 'evomerge resume DIR' runs the finals again")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ask": "x"}', '{"elapsed": NaN}'])
def test_damaged_times_are_counted_from_zero(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "timing.json").write_text(content)
    assert set(read_timing(tmp_path / "timing.json").values()) == {0.0}
    assert "timing.json is damaged" in caplog.text


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_comparison_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "comparison.json").write_text(content)
    assert read_comparison(tmp_path / "comparison.json") is None
    assert "comparison.json is damaged" in caplog.text


def test_what_cannot_be_done_without_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(StudyError, match=r"f\.json is damaged: .*line 2 column 6"):
        read_json(tmp_path / "f.json", dict)
    (tmp_path / "f.json").write_text('{"a": 1}')
    with pytest.raises(StudyError, match=r"f\.json is damaged: it lacks 'b'"):
        read_json(tmp_path / "f.json", lambda content: content["b"])
    assert read_json(tmp_path / "f.json", dict) == {"a": 1}
    assert read_json(tmp_path / "none.json", dict) is None


@pytest.mark.parametrize("change", [{"stderr": ()}, {"values": (0.5, 0.5), "stderr": (0.1, 0.1)}])
def test_finals_have_a_value_and_an_error_bar_per_objective(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, tuple[float, ...]]
) -> None:
    write_finals(tmp_path / "finals.json", Finals((replace(RECORD, **change),)))
    assert read_finals(tmp_path / "finals.json", n_objectives=1) == Finals()
    assert "finals.json is damaged: expected a value and an error bar for each" in caplog.text
