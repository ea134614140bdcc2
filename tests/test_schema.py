"""YAML files: what is wrong in them is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.config.experiment import Experiment
from evomerge.errors import ConfigError
from evomerge.schema import parse, parse_yaml, read_yaml
from evomerge.space.spec import ParameterSpec


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


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path} is not readable YAML: Is a directory$"):
        read_yaml(tmp_path)


def test_a_merged_mapping_may_have_its_keys_replaced() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}\n") == {"a": {"x": 1}, "b": {"x": 2}}


def test_keys_are_read_as_they_are_written() -> None:
    assert parse_yaml("on: true\n") == {"on": True}


def faults_of(record: type, content: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        parse(record, content)
    return tuple(map(str, error.value.faults))


GENE = {"range": [0.05, 1]}
EXPERIMENT = {
    "models": {"base": "zoo:base", "experts": {"m": "zoo:math"}},
    "search_space": "global_linear",
    "evaluators": ["zoo"],
    "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
}


@pytest.mark.parametrize(
    ("record", "content", "expected"),
    [
        (
            ParameterSpec,
            {"method": "task_arithmetic", "max_active": 2, "genes": {"coefficient": GENE}},
            "max_active: unknown key here; it belongs under genes.NAME",
        ),
        (
            ParameterSpec,
            {"method": "task_arithmetic", "genes": {"coefficient": {**GENE, "depth": 2}}},
            "genes.coefficient.depth: unknown key here; it belongs at the top level",
        ),
        (
            ParameterSpec,
            {"method": "task_arithmetic", "genes": {"coefficient": {"rnge": [0, 1]}}},
            "genes.coefficient.rnge: unknown key; did you mean 'range'?",
        ),
        (
            Experiment,
            {**EXPERIMENT, "trials": 5},
            "trials: unknown key here; it belongs under budget",
        ),
        # 'tasks' is near, but a key of evaluators; nothing at this level is.
        (Experiment, {**EXPERIMENT, "tassks": 5}, "tassks: unknown key"),
        (
            Experiment,
            {**EXPERIMENT, "models": {"base": False, "experts": {"m": "zoo:math"}}},
            "models.base: expected text, got False; YAML reads on, off, yes "
            "and no as true and false: put text in quotes",
        ),
        (Experiment, {**EXPERIMENT, "budget": {"trials": 10**23}}, "budget.trials: input sh"),
        (Experiment, {**EXPERIMENT, "execution": {"workers": 10**8}}, "execution.workers: e"),
        (Experiment, {**EXPERIMENT, "seed": 10**50}, "seed: input should be less than"),
        (Experiment, {**EXPERIMENT, "budget": {"wall_clock": "9999999d"}}, "budget.wall_clo"),
        (Experiment, {**EXPERIMENT, "budget": {"wall_clock": "9" * 10**6}}, "budget.wall_cl"),
        (Experiment, {**EXPERIMENT, "budget": {"wall_clock": float("inf")}}, "budget.wall_c"),
    ],
)
def test_one_line_says_where_a_key_belongs_and_what_a_value_should_be(
    record: type, content: object, expected: str
) -> None:
    (line,) = faults_of(record, content)
    assert line.startswith(expected)
    assert len(line) < 300


def test_faults_are_counted_where_they_are_many() -> None:
    content = {**EXPERIMENT, "evaluators": [{"taks": 1}] * 20_000}
    *lines, last = faults_of(Experiment, content)
    assert len(lines) == 50
    assert last.startswith("and ")


def test_a_large_value_is_cut_short_in_a_message() -> None:
    big = [["x" * 50] * 50] * 50
    (line,) = faults_of(Experiment, {**EXPERIMENT, "seed": big})
    assert len(line) < 300


@pytest.mark.parametrize("switch", ["on", "true", "no"])
def test_a_switch_is_no_number(switch: str) -> None:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math"}},
        "search_space": "global_linear",
        "evaluators": ["zoo"],
        "objectives": [{"task": "t", "metric": "m"}],
        "budget": parse_yaml(f"trials: {switch}"),
        "seed": parse_yaml(switch),
        "allow_test_split": True,
        "gates": False,
    }
    with pytest.raises(ConfigError) as caught:
        parse(Experiment, content)
    got = "false" if switch == "no" else "true"
    assert len(caught.value.faults) == 2
    expected = f"expected a whole number, got {got}"
    assert [fault.text for fault in caught.value.faults] == [expected] * 2


def test_keys_and_values_are_no_text() -> None:
    """One such key beside another, or beside a default that depends on it, hides no fault."""
    objective = {"task": {"a": "b"}, "metric": {"c": "d"}}
    assert faults_of(Experiment, {**EXPERIMENT, "objectives": [objective]}) == (
        "objectives[0].task: expected text, got {'a': 'b'}",
        "objectives[0].metric: expected text, got {'c': 'd'}",
    )
