"""Every YAML that ships must load, resolve and fit its models."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.config.assemble import assemble
from evomerge.config.load import load_experiment
from evomerge.config.presets import PRESET_KINDS, Presets
from evomerge.config.spaces import build_space
from evomerge.schema import read_yaml
from evomerge.space.protocol import ModelSet

PRESETS = Presets()
ROOT = Path(__file__).parents[2]


def test_every_file_under_the_preset_folders_is_found() -> None:
    for kind in PRESET_KINDS:
        on_disk = {f.stem for f in (ROOT / kind).glob("*.yaml")}
        assert set(PRESETS.names(kind)) == on_disk


@pytest.mark.parametrize("name", PRESETS.names("search_spaces"))
def test_search_space_presets_decode(name: str) -> None:
    models = ModelSet("zoo:base", {"a": "zoo:math", "b": "zoo:list"}, n_layers=6)
    space = build_space(read_yaml(PRESETS.names("search_spaces")[name]), models, name)
    assert space.recipe(space.defaults).faults() == []
    assert len(space.describe()) == len(space.distributions) > 0


@pytest.mark.parametrize("name", PRESETS.names("experiments"))
def test_experiment_presets_fit_together(name: str) -> None:
    path = PRESETS.names("experiments")[name]
    assembly = assemble(load_experiment(path, PRESETS), str(path))
    assert assembly.objectives
