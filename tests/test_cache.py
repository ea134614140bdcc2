"""What is kept between runs has a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evomerge.cache import hold, hold_room, trim_cache
from evomerge.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four files of 100 bytes in two rooms, the first used longest ago; and one that is no room's.

    The second was written first and read since.
    """
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    used = {"a/0": (1, 1), "b/deep/1": (2, 0), "a/2": (3, 3), "b/3": (4, 4), "other/4": (0, 0)}
    for name, times in used.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, times)
    return [tmp_path / name for name in used]


def left(files: list[Path]) -> list[int]:
    return [i for i, file in enumerate(files) if file.exists()]


@pytest.mark.parametrize(
    ("n_bytes", "kept"), [(400, [0, 1, 2, 3]), (399, [1, 2, 3]), (250, [2, 3]), (0, [])]
)
def test_files_used_longest_ago_go_first(
    n_bytes: int, kept: list[int], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", str(n_bytes / 1e9))
    trim_cache("a", "b")
    assert left(files) == [*kept, 4]


def test_a_file_in_use_stays(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", str(200 / 1e9))
    with hold(files[0]):
        trim_cache("a", "b")
        assert left(files) == [0, 3, 4]
    trim_cache("a", "b")
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", "0")
    trim_cache("a", "b")
    assert left(files) == [4]


def test_a_room_in_use_stays(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", "0")
    with hold_room(files[0].parent), hold_room(files[0].parent):
        trim_cache("a", "b")
        assert left(files) == [0, 2, 4]
    trim_cache("a", "b")
    assert left(files) == [4]


def test_a_file_that_another_process_moves_meanwhile_is_passed_over(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def moved_right_after(path: Path) -> bool:
        found = is_file(path)
        if path == files[1]:
            path.rename(path.with_name("1.lock"))
        return found

    monkeypatch.setattr(Path, "is_file", moved_right_after)
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", str(200 / 1e9))
    trim_cache("a", "b")
    monkeypatch.undo()
    assert left(files) == [2, 3, 4]


def test_twenty_gigabytes_are_kept_by_default(files: list[Path]) -> None:
    trim_cache("a", "b", "none")
    assert left(files) == [0, 1, 2, 3, 4]


def test_a_limit_that_is_no_number_is_explained(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", "much")
    with pytest.raises(ConfigError, match=r"a number of GB.*EVOMERGE_CACHE_LIMIT, got 'much'"):
        trim_cache("a")
