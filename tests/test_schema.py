"""YAML files: what is wrong in them is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.schema import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected keys and values in FILE, got an empty file"),
        ("# no keys\n", "expected keys and values in FILE, got an empty file"),
        ("- a\n", "expected keys and values in FILE, got a list"),
        ("a: {b: 1\nc:\n", "FILE is not readable YAML: line 2, column 2: expected ',' or '}'"),
        ("a: 1\na: 2\n", "line 2, column 1: expected each key once, got 'a' again"),
        ("a: {b: 1, b: 2}\n", "line 1, column 11: expected each key once, got 'b' again"),
        ("on: 1\n'on': 2\n", "line 2, column 1: expected each key once, got 'on' again"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert expected.replace("FILE", str(file)) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_merged_mapping_may_have_its_keys_replaced() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}\n") == {"a": {"x": 1}, "b": {"x": 2}}


def test_keys_are_read_as_they_are_written() -> None:
    assert parse_yaml("on: true\n") == {"on": True}
