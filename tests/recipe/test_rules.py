"""Rules that several rooms write make the models they say, whatever the methods' defaults are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evomerge.merging.folder import write_checkpoint
from evomerge.methods.registry import method
from evomerge.models.zoo import zoo_path
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.recipe.rules import copy_rule, sum_rule

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}


@pytest.mark.parametrize(
    "rule", [copy_rule("base", EXPERTS), copy_rule("list", EXPERTS), sum_rule({})]
)
def test_every_parameter_is_stated(rule: Rule) -> None:
    assert rule.parameters.keys() == method(rule.method).parameters().keys()


@pytest.mark.parametrize("model", ["base", "list"])
def test_a_copy_is_the_model_bit_for_bit(model: str, tmp_path: Path) -> None:
    write_checkpoint(Recipe(EXPERTS, (copy_rule(model, EXPERTS),), base="zoo:base"), tmp_path / "m")
    made, stored = tensors(tmp_path / "m"), tensors(zoo_path(model))
    assert made.keys() == stored.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in stored.items())


def test_a_sum_is_the_base_plus_scaled_task_vectors(tmp_path: Path) -> None:
    rule = sum_rule({"math": 0.5, "list": 0.25}, 2.0)
    write_checkpoint(Recipe(EXPERTS, (rule,), base="zoo:base", dtype="float32"), tmp_path / "m")
    made = tensors(tmp_path / "m")
    base, math, lists = (tensors(zoo_path(name)) for name in ("base", "math", "list"))
    for name, tensor in made.items():
        b, m, s = base[name].double(), math[name].double(), lists[name].double()
        torch.testing.assert_close(tensor.double(), b + (m - b) + 0.5 * (s - b))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {k: t for f in sorted(folder.glob("*.safetensors")) for k, t in load_file(f).items()}
