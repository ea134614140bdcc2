"""YAML as plain data: what it may cost, and what is refused because it is not what it looks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml

from evomerge import plain_yaml
from evomerge.errors import Fault
from evomerge.plain_yaml import dump_yaml, in_file, parse_yaml, yaml_reason


def bomb(levels: int) -> str:
    """Nest aliases: 9 ** levels values in some hundred bytes."""
    lines = [f"a0: &a0 [{', '.join(['lol'] * 9)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


MERGES = "a0: &a0 {k: 1}\n" + "\n".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb(9), "line 6, column 10: expected aliases of at most 100,000 values, got more"),
        (MERGES, "expected aliases of at most 100,000 values, got more"),
        ("a: &a [1, *a]", "line 1, column 11: expected no alias inside of what it names, got *a"),
        ("a: &a {b: *a}", "expected no alias inside of what it names, got *a"),
        ("a: " + "[" * 300 + "]" * 300, "line 1, column 67: expected at most 64 levels"),
        ("a: " + "{b: " * 3000 + "1" + "}" * 3000, "expected at most 64 levels in one another"),
        ("\n".join(" " * i + "a:" for i in range(500)), "line 64, column 64: expected at most 64"),
        ("x: 1\na: " + "9" * 5000, "line 2, column 4: expected a number of at most 100 characters"),
        ("a: 0x" + "f" * 5000, "expected a number of at most 100 characters"),
        ("a: !!int x", "line 1, column 4: expected a value of the type int, got 'x'"),
        ("a: !!float y", "expected a value of the type float, got 'y'"),
        ("a: !!bool z", "expected a value of the type bool, got 'z'"),
        ("a: !!timestamp 2020-01-01", "expected plain data, got the tag 'timestamp'"),
        ("a: !!set {x}", "expected plain data, got the tag 'set'"),
        ("a: !!binary eA==", "expected plain data, got the tag 'binary'"),
        ("a: !function f.g", "expected plain data, got the tag '!function'"),
        ("a: !!python/object/apply:os.system [x]", "expected plain data, got the tag"),
        ("!odd a: 1", "line 1, column 1: expected plain data, got the tag '!odd'"),
        ("? [a]\n: 1", "found unhashable key"),
        ("'': 1", "expected a key of 1 to 200 printable characters, got ''"),
        ("a" * 201 + ": 1", "expected a key of 1 to 200 printable characters"),
        ('"a\\nb": 1', "expected a key of 1 to 200 printable characters, got 'a\\nb'"),
        ('x: 1\na: "b\\0"', "line 2, column 4: expected text without control characters"),
        ('a: "\\ud800"', "expected text without control characters"),
        ('a: "\\U00110000"', "line 1, column"),
        ("a: 1\nb: \0", "line 2, column 1: expected text, got the character #x0000"),
        (
            "a: 1:30",
            "1:30 would be read to base 60; write the number without a colon, or text",
        ),
        ("a: 1:30.5", "1:30.5 would be read to base 60"),
        ("a: 010", "010 would be read as octal; write the number without a leading zero, or text"),
        ("a: 1\n---\na: 2", "line 2, column 1: expected one document, got another after '---'"),
        ("a: " + "x" * 17 * 2**20, "expected at most 16,777,216 characters"),
        ("a: *" + "b" * 5000, "found undefined alias"),
    ],
)
def test_what_is_no_plain_data_is_refused_in_one_short_line(text: str, expected: str) -> None:
    tracemalloc.start()
    with pytest.raises(yaml.YAMLError) as error:
        parse_yaml(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reason = yaml_reason(error.value)
    assert expected in reason
    assert len(reason) <= 400
    assert len(reason.splitlines()) == 1
    assert peak < 50e6 + 10 * len(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{on: 1, no: 2, 12: 3, null: 4, ~: 5, 1.5: 6, 010: 7}", {
            "on": 1, "no": 2, "12": 3, "null": 4, "~": 5, "1.5": 6, "010": 7,
        }),
        ("[on, yes, off, no]", [True, True, False, False]),
        ("[1e-3, 1E5, -2.5e+3, .5e1, 1.0e5]", [0.001, 1e5, -2500.0, 5.0, 1e5]),
        ("[2026-01-05, 2026-13-45, '010', '1:30', =]", [
            "2026-01-05", "2026-13-45", "010", "1:30", "=",
        ]),
        ("[0, 00, 07, 0o17, 0x1f, 1_000, -5]", [0, 0, 7, "0o17", 31, 1000, -5]),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("a: &a [1, 2]\nb: [*a, *a]", {"a": [1, 2], "b": [[1, 2], [1, 2]]}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("", None),
    ],
)  # fmt: skip
def test_plain_data_is_read_as_it_looks(text: str, value: object) -> None:
    assert parse_yaml(text) == value


TEXTS = ["1e-3", "010", "1:30", "no", "on", "~", "2026-01-05", "=", "1_0", "a: b", "", "é", "x\ny"]


def test_what_is_written_is_read_as_it_was() -> None:
    content = {text if text.isprintable() and text else "k": text for text in TEXTS}
    assert parse_yaml(dump_yaml(content)) == content
    # Other readers know other numbers; what is text here is text for them, too.
    assert yaml.safe_load(dump_yaml(TEXTS)) == TEXTS


def test_a_file_is_read_once_for_all_that_is_wrong_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("".join(f"- key {i}\n" for i in range(99)))
    loader, loaded = plain_yaml._Loader, list[str]()
    monkeypatch.setattr(plain_yaml, "_Loader", lambda text: (loaded.append(text), loader(text))[1])
    places = [in_file(Fault((i,), "no"), file).place for i in range(99)]
    assert places == [f"{file}:{i + 1}" for i in range(99)]
    assert len(loaded) == 1
