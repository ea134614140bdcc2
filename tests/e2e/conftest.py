"""A small experiment for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart with fewer items and trials."""
    import yaml

    from evomerge.config.presets import Presets

    presets = Presets()
    content = yaml.safe_load(presets.names("experiments")["quickstart"].read_text())
    evaluator = yaml.safe_load(presets.names("evaluators")["zoo"].read_text())
    folder = presets.names("evaluators")["zoo"].parent
    content["evaluators"] = [
        {**evaluator, "include_path": str(folder / evaluator["include_path"]), "limit": 24}
    ]
    content["budget"] = {"trials": 12}
    content["finalists"] = 2
    path = tmp_path_factory.mktemp("experiment") / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
