"""One small study for the tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest

import evomerge
from evomerge.config.presets import Presets

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"


@pytest.fixture(scope="session")
def keys() -> dict[str, Any]:
    """An experiment of two experts and seconds."""
    splits = {split: split for split in ("search", "validation", "test")}
    wanted = {"tasks": ["zoo_math", "zoo_facts"], "include_path": str(TASKS), "splits": splits}
    return {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "facts": "zoo:facts"}},
        "search_space": "global_linear",
        "evaluators": [{**wanted, "limit": 6}],
        "objectives": [
            {"task": "zoo_math", "metric": "exact_match"},
            {"task": "zoo_facts", "metric": "acc"},
        ],
        "sampler": "random",
        "budget": {"trials": 6},
        "finalists": 1,
        "execution": {"executor": "inline"},
    }


@pytest.fixture(scope="session")
def study(keys: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> evomerge.Study:
    """The study of it, run without a stop."""
    return evomerge.run(keys, tmp_path_factory.mktemp("api") / "whole")
