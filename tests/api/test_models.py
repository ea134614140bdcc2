"""Single models from Python are those of plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import evomerge
from evomerge.errors import ConfigError
from evomerge.models.zoo import zoo_path
from tests.api.conftest import TASKS

AVERAGE = {
    "base": "zoo:base",
    "experts": {"math": "zoo:math", "facts": "zoo:facts"},
    "method": "linear",
    "parameters": {"coefficient": 0.5},
}
DOUBLED = [{"source": "base", "layer": layer} for layer in (0, 1, 1, 2, 3, 4, 5)]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def test_an_average_is_the_mean_of_its_experts() -> None:
    merged = evomerge.merge(AVERAGE)
    one, two = state(zoo_path("math")), state(zoo_path("facts"))
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, (one[name] + two[name]) / 2, rtol=1e-5, atol=1e-6)
    assert not merged.training


@pytest.mark.parametrize("path", [[], DOUBLED])
def test_a_live_merge_is_the_folder_and_can_be_saved(
    path: list[dict[str, Any]], tmp_path: Path
) -> None:
    recipe = {**AVERAGE, "path": path} if path else AVERAGE
    live, folder = evomerge.merge(recipe), evomerge.merge(recipe, tmp_path / "merged")
    live.save_pretrained(tmp_path / "saved")
    expected, saved = state(folder), state(tmp_path / "saved")
    assert expected.keys() == saved.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())
    assert AutoTokenizer.from_pretrained(live.name_or_path).get_vocab()


def test_a_live_model_scores_what_its_folder_scores_and_stays_in_its_mode() -> None:
    model = AutoModelForCausalLM.from_pretrained(zoo_path("facts")).train()
    wanted: dict[str, Any] = {"tasks": ["zoo_facts"], "include_path": TASKS, "limit": 8}
    live = evomerge.evaluate(model, **wanted)
    assert live.equals(evomerge.evaluate("zoo:facts", **wanted))
    assert list(live["n"]) == [8] * len(live)
    assert model.training


def test_one_name_stands_for_itself() -> None:
    wanted: dict[str, Any] = {"include_path": TASKS, "limit": 2}
    one = evomerge.evaluate("zoo:facts", "zoo_facts", **wanted)
    assert one.equals(evomerge.evaluate("zoo:facts", ["zoo_facts"], **wanted))
    with pytest.raises(ConfigError, match=r"expected a list of KEY=VALUE, got 'budget.trials=7'"):
        evomerge.Experiment.load("quickstart", set="budget.trials=7")


def test_what_is_no_model_is_said_to_be_none() -> None:
    with pytest.raises(ConfigError, match=r"or a live model, got a dict; evomerge.merge makes"):
        evomerge.evaluate(AVERAGE, ["zoo_facts"], include_path=TASKS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "got neither"),
        ({"tasks": ["a"], "evaluators": ["zoo"]}, "got both"),
        ({"tasks": ["a"], "include_path": "nowhere"}, "got nowhere"),
    ],
)
def test_what_to_evaluate_must_be_clear(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        evomerge.evaluate("zoo:facts", **given)
    assert "--" not in str(error.value), "it is no command line"
