"""What ``evomerge methods`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from evomerge.cli.catalogue import methods, presets_copy, presets_show
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.evaluation import Suite
from evomerge.evaluation.requests import prepare_split
from evomerge.evaluation.tasks import load_suite
from evomerge.methods.modifiers import MODIFIERS, modifier_faults
from evomerge.methods.registry import method_names
from evomerge.runs.parts import load_suites


def test_methods_modifiers_and_learned_methods_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    methods(None)
    first_words = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert set(first_words) >= {*method_names(), *MODIFIERS, "method", "modifier"}
    learned = first_words[first_words.index("experiment") + 1 :]
    assert {*learned} - {""} <= Presets().names("experiments").keys()
    assert "adamerging" in learned


@pytest.mark.parametrize("name", MODIFIERS)
def test_the_page_of_a_modifier_shows_its_parameters_and_how_to_write_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    methods(name)
    page = capsys.readouterr().out
    for parameter in MODIFIERS[name].parameters().values():
        assert parameter.name in page
    written = yaml.safe_load(page.splitlines()[-1])["modifiers"]
    assert list(written) == [name]
    assert modifier_faults(written, ("one", "two")) == []


def test_the_page_of_a_method_is_that_of_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    methods("ties")
    assert "Yadav et al. 2023" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "slopes"),
    [
        ("ties", "coefficient, lambda (masks, gates and elected signs held as they are)"),
        ("slerp", "t (masks"),
        ("lines", "alpha, beta (masks"),
        ("random_drop", "none"),
    ],
)
def test_the_page_tells_which_parameters_have_slopes(
    name: str, slopes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    methods(name)
    assert f"slopes along: {slopes}" in capsys.readouterr().out


def test_a_copied_preset_is_never_written_over(tmp_path: Path) -> None:
    presets_copy("layerwise_ties", tmp_path)
    copy = tmp_path / "layerwise_ties.yaml"
    copy.write_text("# edited\n")
    with pytest.raises(ConfigError, match=r"expected no layerwise_ties\.yaml in"):
        presets_copy("layerwise_ties", tmp_path)
    assert copy.read_text() == "# edited\n"


def test_a_copied_evaluator_brings_its_tasks_along(tmp_path: Path) -> None:
    presets_copy("zoo", tmp_path)
    copied = load_suites([str(tmp_path / "zoo.yaml")], Presets(), tmp_path)
    assert copied[0].include_path == tmp_path / "tasks"
    assert n_items(copied) == n_items(load_suites(["zoo"], Presets(), tmp_path))


def test_a_misspelt_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'layerwise_ties'"):
        presets_show("layerwise_tie")


def n_items(suites: Sequence[Suite]) -> list[int]:
    split = [prepare_split(load_suite(suite), "test", None) for suite in suites]
    return [len(task.items) for tasks in split for task in tasks]
