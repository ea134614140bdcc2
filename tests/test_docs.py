"""The pages of docs/ are true: their examples are read, and no key is left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from evomerge.config import experiment as module
from evomerge.config.experiment import Experiment
from evomerge.evaluation.gates import Gates
from evomerge.schema import parse, parse_yaml

PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"
WRITTEN_BY_US = {"winners", "origin", "recipe"}  # into resolved experiments only


def example() -> dict[str, Any]:
    """All blocks of the page as one experiment."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), flags=re.S)
    return {key: value for block in blocks for key, value in parse_yaml(block).items()}


@pytest.mark.parametrize("one_of", ["search_space", "stages"])
def test_the_example_is_an_experiment(one_of: str) -> None:
    other = {"search_space": "stages", "stages": "search_space"}[one_of]
    content = {key: value for key, value in example().items() if key != other}
    if one_of == "stages":
        del content["storage"]
    parse(Experiment, content)


def test_every_key_is_there() -> None:
    text = PAGE.read_text()
    keys = set(Gates.__dataclass_fields__)
    for name in module.__all__:
        section = getattr(module, name)
        assert issubclass(section, BaseModel)
        keys |= set(section.model_fields)
    missing = {key for key in keys - WRITTEN_BY_US if not re.search(rf"\b{key}:", text)}
    assert not missing


def test_what_is_shown_as_a_default_is_one() -> None:
    """Of the keys without the word example in their comment, or in that of their section."""
    shown = example()
    assert shown["seeds"]["parents"] is Experiment.model_fields["seeds"].default.parents
    for key in ("gates", "execution"):
        default = Experiment.model_fields[key].default
        for name, value in shown[key].items():
            assert value == getattr(default, name), f"{key}.{name}"
    for key in ("allow_test_split", "engine", "finalists", "seed"):
        assert shown[key] == Experiment.model_fields[key].default, key
    assert shown["budget"]["trials"] == Experiment.model_fields["budget"].default.trials
