"""Paths in task YAML mean its folder; code in it is found without running."""

from __future__ import annotations

import pytest

from evomerge.evaluation.task_files import (
    data_faults,
    read_chain,
    with_absolute_paths,
)


def local(files: object, **changes: object) -> dict[str, object]:
    return {"dataset_path": "json", "dataset_kwargs": {"data_files": files, "field": "x"}} | changes


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("a.jsonl", "{folder}/a.jsonl"),
        (["a.jsonl", "/b.jsonl"], ["{folder}/a.jsonl", "/b.jsonl"]),
        ({"test": ["../a.jsonl"]}, {"test": ["{parent}/a.jsonl"]}),
        ("https://host/a.jsonl", "https://host/a.jsonl"),
    ],
)
def test_data_files_are_resolved_against_the_folder(files, expected, tmp_path):
    def fill(value):
        if isinstance(value, str):
            return value.format(folder=tmp_path, parent=tmp_path.parent)
        if isinstance(value, list):
            return [fill(entry) for entry in value]
        return {key: fill(entry) for key, entry in value.items()}

    config = local(files)
    resolved = with_absolute_paths(config, tmp_path)
    assert resolved["dataset_kwargs"] == {"data_files": fill(expected), "field": "x"}
    assert config == local(files)


def test_files_of_a_hub_dataset_are_left_alone(tmp_path):
    config = local("a.jsonl", dataset_path="someone/data")
    assert with_absolute_paths(config, tmp_path) == config
    assert data_faults(config) == []


def test_members_of_a_group_are_resolved_too(tmp_path):
    group = {"group": "g", "task": ["other", local("a.jsonl", task="own")]}
    member = with_absolute_paths(group, tmp_path)["task"][1]
    assert member["dataset_kwargs"]["data_files"] == str(tmp_path / "a.jsonl")


def test_missing_and_empty_files_are_listed_but_not_patterns(tmp_path):
    (tmp_path / "there.jsonl").write_text("{}")
    (tmp_path / "empty.jsonl").touch()
    files = {"a": "there.jsonl", "b": ["gone.jsonl", "many-*.jsonl"], "c": "empty.jsonl"}
    assert data_faults(with_absolute_paths(local(files), tmp_path)) == [
        f"data file does not exist: {tmp_path / 'gone.jsonl'}",
        f"data file is empty: {tmp_path / 'empty.jsonl'}",
    ]


def test_included_files_follow_in_the_order_in_which_keys_win(tmp_path):
    for name, text in {
        "main.yaml": "include: [a, b]\ntask: t",
        "a": "x: 1",
        "b": "include: c\ny: 1",
        "c": "include: main.yaml\nx: 2",  # a circle ends
    }.items():
        (tmp_path / name).write_text(text)
    chain = read_chain(tmp_path / "main.yaml")
    assert [file.path.name for file in chain] == ["main.yaml", "b", "c", "a"]
    assert [file.path.name for file in chain if "x" in file.data] == ["c", "a"]


@pytest.mark.parametrize(
    "text",
    ["a: !function b.c", "a: [{b: !function b.c}]", "!function b.c : 1", "a: !!python/tuple []"],
)
def test_tags_that_are_not_data_are_found(text, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    (found,) = read_chain(tmp_path / "t.yaml")[0].code
    assert found.startswith(("!function b.c", "tag:yaml.org,2002:python/tuple"))


def test_plain_data_has_no_code_tags(tmp_path):
    (tmp_path / "t.yaml").write_text(
        "a: [1, 2.5, true, null, 2020-01-01, text, {b: '!function x'}]"
    )
    assert read_chain(tmp_path / "t.yaml")[0].code == ()


@pytest.mark.parametrize("text", ["a: [", "- a", "", "\ta: 1"])
def test_what_is_no_mapping_cannot_be_read(text, tmp_path):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"cannot read .*t\.yaml") as caught:
        read_chain(tmp_path / "t.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["!!int x", "!!bool z", "!!timestamp x", "9" * 5000, "2026-13-45"]
)
def test_a_value_that_is_none_of_its_type_is_a_fault_of_the_file(value, tmp_path):
    (tmp_path / "t.yaml").write_text(f"task: t\na: {value}\n")
    with pytest.raises(ValueError, match=r"cannot read .*t\.yaml") as caught:
        read_chain(tmp_path / "t.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_broken_yaml_is_named_with_its_line(tmp_path):
    (tmp_path / "t.yaml").write_text("task: t\na: [1\nb: 2\n")
    with pytest.raises(ValueError, match=r"t\.yaml: line 3, column 2: "):
        read_chain(tmp_path / "t.yaml")
