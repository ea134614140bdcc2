"""What ``evomerge methods`` prints."""

from __future__ import annotations

import pytest
import yaml

from evomerge.cli.catalogue import methods
from evomerge.methods.modifiers import MODIFIERS, modifier_faults
from evomerge.methods.registry import method_names


def test_methods_and_modifiers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    methods(None)
    first_words = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert set(first_words) >= {*method_names(), *MODIFIERS, "method", "modifier"}


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
