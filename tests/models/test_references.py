"""The three kinds of reference, from files and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.config.load import dump_experiment, experiment_digest, load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import CheckpointError, ConfigError
from evomerge.models.reference import (
    AdapterRef,
    DeltaRef,
    absolute_reference,
    mentioned_models,
    resolve_adapter,
    resolve_model,
)
from evomerge.recipe.files import dump_recipe, load_recipe
from evomerge.recipe.recipe import Recipe, Rule

EXPERTS = {
    "math": "zoo:math",
    "code": AdapterRef(adapter="owner/lora@v1", on="zoo:base"),
    "chat": DeltaRef(model="zoo:facts", minus="owner/old_base"),
}
RECIPE = Recipe(EXPERTS, (Rule("ties"),), base="zoo:base")
EXPERIMENT = """
models:
  base: zoo:base
  experts: {math: zoo:math, code: {adapter: ./lora, on: zoo:list}, chat: {model: a, minus: b}}
search_space: global_linear
evaluators: [zoo]
objectives: [{task: zoo_math, metric: exact_match}]
"""


def test_recipes_come_back_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(dump_recipe(RECIPE))
    again = load_recipe(tmp_path / "r.yaml")
    assert again == RECIPE
    assert again.digest == RECIPE.digest


def test_the_digest_sees_both_models_of_a_pair() -> None:
    for other in (AdapterRef("owner/lora", "zoo:base"), AdapterRef("owner/lora@v1", "zoo:math")):
        assert replace(RECIPE, experts={**EXPERTS, "code": other}).digest != RECIPE.digest


def test_the_anchor_without_a_base_is_what_the_first_expert_is_on() -> None:
    recipe = Recipe({"code": EXPERTS["code"]}, (Rule("linear"),))
    assert recipe.anchor == "zoo:base"


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    for kind in (AdapterRef, DeltaRef):
        written = kind("../lora", "zoo:base")
        assert absolute_reference(written, tmp_path / "x") == kind(
            str(tmp_path / "lora"), "zoo:base"
        )


def test_experiments_keep_them_when_resolved(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    (tmp_path / "lora").mkdir()
    experiment = load_experiment(tmp_path / "e.yaml", Presets(None))
    assert experiment.models.experts == {
        "math": "zoo:math",
        "code": AdapterRef(str(tmp_path / "lora"), "zoo:list"),
        "chat": DeltaRef(str(tmp_path / "a"), str(tmp_path / "b")),
    }
    (tmp_path / "resolved.yaml").write_text(dump_experiment(experiment))
    again = load_experiment(tmp_path / "resolved.yaml", Presets(None))
    assert experiment_digest(again) == experiment_digest(experiment)


@pytest.mark.parametrize(
    "expert", ["{adapter: ./lora}", "{adapter: a, on: b, minus: c}", "{model: [a], minus: b}", "3"]
)
def test_other_forms_are_one_fault_that_shows_the_right_ones(expert: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        f"base: zoo:base\nexperts: {{x: {expert}}}\nmethod: task_arithmetic\n"
    )
    with pytest.raises(ConfigError) as error:
        load_recipe(tmp_path / "r.yaml")
    (fault,) = map(str, error.value.faults)
    assert "experts.x: expected zoo:NAME, a folder, a Hub id, {adapter: FOLDER, on:" in fault


def test_text_and_parts() -> None:
    assert [str(ref) for ref in EXPERTS.values()] == [
        "zoo:math",
        "owner/lora@v1 on zoo:base",
        "zoo:facts minus owner/old_base",
    ]
    assert mentioned_models(EXPERTS["code"]) == ("owner/lora@v1", "zoo:base")
    assert mentioned_models("zoo:math") == ("zoo:math",)


def test_an_adapter_where_a_model_belongs_is_explained(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"write \{adapter: .*, on: MODEL\}"):
        resolve_model(str(tmp_path))
    assert resolve_adapter(str(tmp_path)) == tmp_path


def test_a_model_where_an_adapter_belongs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        resolve_adapter(str(tmp_path))


def test_the_word_on_is_a_key_also_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    change = "models.experts.math={adapter: ./lora, on: zoo:facts}"
    (tmp_path / "lora").mkdir()
    experiment = load_experiment(tmp_path / "e.yaml", Presets(None), [change])
    assert experiment.models.experts["math"] == AdapterRef(str(tmp_path / "lora"), "zoo:facts")
